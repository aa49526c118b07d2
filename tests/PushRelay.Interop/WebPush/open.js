// Opens Web Push messages with http_ece, which shares no code with the relay. Standard input: one line of JSON for each,
// {"privateKey": PEM, "auth": base64url, "message": base64url}; standard output: the text in base64, a line for each.
const crypto = require('crypto');
const ece = require('http_ece');
const lines = require('readline').createInterface({ input: process.stdin });

lines.on('line', (line) => {
  const { privateKey, auth, message } = JSON.parse(line);
  const jwk = crypto.createPrivateKey(privateKey).export({ format: 'jwk' });
  const key = crypto.createECDH('prime256v1');
  key.setPrivateKey(Buffer.from(jwk.d, 'base64url'));
  const text = ece.decrypt(Buffer.from(message, 'base64url'), { version: 'aes128gcm', privateKey: key, authSecret: auth });
  console.log(text.toString('base64'));
});
