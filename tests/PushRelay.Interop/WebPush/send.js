// Sends one Web Push message with the package web-push, which shares no code with the relay. Argument: JSON
// {"subscription", "publicKey", "privateKey", "subject", "text", "options"}; prints the answer's status.
const https = require('https');
const push = require('web-push');

const { subscription, publicKey, privateKey, subject, text, options, ca } = JSON.parse(process.argv[2]);
push
  .sendNotification(subscription, text, {
    ...options,
    vapidDetails: { subject, publicKey, privateKey },
    agent: new https.Agent({ ca }),
  })
  .then((answer) => console.log(answer.statusCode))
  .catch((error) => console.log(error.statusCode ?? error.message));
