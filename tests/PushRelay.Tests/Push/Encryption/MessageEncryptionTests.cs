using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using PushRelay.Push.Encryption;
using PushRelay.Rig.Networks;

namespace PushRelay.Tests.Push.Encryption;

/// <summary>RFC 8291 and RFC 8188 by their own examples, and by a receiver that shares no code with the sender.</summary>
public sealed class MessageEncryptionTests
{
    // RFC 8291 section 5 and appendix A
    private const string Text = "When I grow up, I want to be a watermelon";
    private const string SenderPrivate = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
    private const string SenderPoint = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
    private const string ReceiverPrivate = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    private const string ReceiverPoint = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    private const string Auth = "BTBZMqHH6r4Tts7J_aSIgg";
    private const string Salt = "DGv6ra1nlYgDCS1FRnbzlw";
    private const string Message =
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_"
        + "yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    [Fact]
    public void The_example_of_RFC_8291_comes_out_byte_for_byte()
    {
        using var sender = Key(SenderPrivate, SenderPoint);
        Assert.True(ReceiverKeys.TryRead(ReceiverPoint, Auth, out var receiver));

        var message = MessageEncryption.Encrypt(Encoding.UTF8.GetBytes(Text), receiver, Text.Length + 1, sender, Bytes(Salt));

        Assert.Equal(Message, Base64Url.EncodeToString(message));
    }

    [Fact]
    public void The_receiver_of_the_tests_opens_the_example_of_RFC_8291()
    {
        using var receiver = Key(ReceiverPrivate, ReceiverPoint);

        Assert.Equal(Text, Encoding.UTF8.GetString(MessageDecryption.Open(Bytes(Message), receiver, Bytes(Auth))));
    }

    [Theory]
    // RFC 8188 sections 3.1 and 3.2: one record, and records of 25 bytes
    [InlineData("yqdlZ-tYemfogSmv7Ws5PQ", "I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg")]
    [InlineData(
        "BO3ZVPxUlnLORbVGMpbT1Q",
        "uNCkWiNYzKTnBN9ji3-qWAAAABkCYTHOG8chz_gnvgOqdGYovxyjuqRyJFjEDyoF1Fvkj6hQPdPHI51OEUKEpgz3SsLWIqS_uA"
    )]
    public void The_receiver_of_the_tests_opens_the_examples_of_RFC_8188(string key, string message) =>
        Assert.Equal("I am the walrus", Encoding.UTF8.GetString(MessageDecryption.Decode(Bytes(message), Bytes(key))));

    [Theory]
    [InlineData(0, 256)]
    [InlineData(1, 256)]
    [InlineData(255, 256)]
    [InlineData(256, 512)]
    [InlineData(3839, 3840)]
    [InlineData(3840, 3994)]
    [InlineData(3993, 3994)]
    public void Only_the_receiver_opens_it_and_its_length_says_little(int textBytes, int contentBytes)
    {
        using var subscriber = new PushSubscriber();
        using var other = new PushSubscriber();
        Assert.True(ReceiverKeys.TryRead(subscriber.P256dh, subscriber.Auth, out var keys));
        var text = RandomNumberGenerator.GetBytes(textBytes);

        var message = MessageEncryption.Encrypt(text, keys);

        Assert.Equal(MessageEncryption.OverheadBytes + contentBytes, message.Length);
        Assert.True(message.Length <= 4096);
        Assert.Equal(text, subscriber.Open(message));
        Assert.ThrowsAny<CryptographicException>(() => other.Open(message));
    }

    [Fact]
    public void The_same_text_never_makes_the_same_message()
    {
        using var subscriber = new PushSubscriber();
        Assert.True(ReceiverKeys.TryRead(subscriber.P256dh, subscriber.Auth, out var keys));
        var messages = Enumerable.Range(0, 20).Select(_ => MessageEncryption.Encrypt("hello"u8, keys)).ToList();

        Assert.Equal(20, messages.Select(m => Convert.ToHexString(m, 0, 16)).Distinct().Count());
        Assert.Equal(20, messages.Select(m => Convert.ToHexString(m, 21, 65)).Distinct().Count());
    }

    [Theory]
    [InlineData(4096, 3993, 3839)]
    [InlineData(2744, 2641, 2559)]
    public void What_fits_is_said_before(int messageBytesMax, int textBytesMax, int paddedTextBytesMax)
    {
        using var subscriber = new PushSubscriber();
        Assert.True(ReceiverKeys.TryRead(subscriber.P256dh, subscriber.Auth, out var keys));

        Assert.Equal(textBytesMax, MessageEncryption.TextBytesMax(messageBytesMax));
        Assert.Equal(paddedTextBytesMax, MessageEncryption.PaddedTextBytesMax(messageBytesMax));
        Assert.Equal(messageBytesMax, MessageEncryption.Encrypt(new byte[textBytesMax], keys, messageBytesMax).Length);
        Assert.Throws<ArgumentException>(() => MessageEncryption.Encrypt(new byte[textBytesMax + 1], keys, messageBytesMax));
    }

    [Theory]
    [InlineData("the point at infinity", "AA")]
    [InlineData("empty", "")]
    [InlineData("cut by a byte", "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw")]
    [InlineData("a byte too long", "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4A")]
    [InlineData("off the curve by a bit", "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw8")]
    [InlineData("zeros", "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    [InlineData("above p", "BP__________________________________________________________________________________________")]
    [InlineData("compressed", "AiVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcx")]
    [InlineData("no base64", "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIA*w4")]
    [InlineData("hybrid form", "BiVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4")]
    public void A_public_key_that_is_no_point_of_the_curve_is_refused(string what, string p256dh)
    {
        Assert.False(ReceiverKeys.IsPoint(p256dh), what);
        // nor is anything encrypted to one that was let in
        if (ReceiverKeys.TryRead(p256dh, Auth, out var keys))
        {
            Assert.ThrowsAny<CryptographicException>(() => MessageEncryption.Encrypt("hello"u8, keys));
        }
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("BTBZMqHH6r4Tts7J_aSI")]
    [InlineData("BTBZMqHH6r4Tts7J_aSIggA")]
    [InlineData("BTBZMqHH6r4Tts7J aSIgg")]
    public void A_secret_of_another_length_is_refused(string? auth)
    {
        Assert.False(ReceiverKeys.IsAuth(auth));
        Assert.False(ReceiverKeys.TryRead(ReceiverPoint, auth, out _));
    }

    [Theory]
    [InlineData("BTBZMqHH6r4Tts7J_aSIgg==")]
    [InlineData("BTBZMqHH6r4Tts7J/aSIgg==")]
    [InlineData("BTBZMqHH6r4Tts7J/aSIgg")]
    public void Padding_and_the_letters_of_plain_base64_are_taken(string auth)
    {
        Assert.True(ReceiverKeys.TryRead(ReceiverPoint + "=", auth, out var keys));
        Assert.Equal(Bytes(Auth), keys.Auth.ToArray());
    }

    private static byte[] Bytes(string text) => Base64Url.DecodeFromChars(text);

    private static ECDiffieHellman Key(string d, string point)
    {
        var bytes = Bytes(point);
        return ECDiffieHellman.Create(
            new ECParameters
            {
                Curve = ECCurve.NamedCurves.nistP256,
                D = Bytes(d),
                Q = new ECPoint { X = bytes[1..33], Y = bytes[33..] },
            }
        );
    }
}
