using PushRelay.Push.WebPush;

namespace PushRelay.Tests.Push.WebPush;

public sealed class PushEndpointTests
{
    [Theory]
    [InlineData("https://fcm.googleapis.com/fcm/send/abc:def", "fcm.googleapis.com", "https://fcm.googleapis.com")]
    [InlineData("https://updates.push.services.mozilla.com/wpush/v2/gAAA", "updates.push.services.mozilla.com", null)]
    [InlineData("https://web.push.apple.com:443/QGu", "web.push.apple.com", null)]
    [InlineData("https://Ntfy.Example.org:8443/upABC?up=1", "ntfy.example.org:8443", "https://ntfy.example.org:8443")]
    [InlineData("https://xn--mnchen-3ya.example/x", "xn--mnchen-3ya.example", null)]
    [InlineData("https://localhost:1024/x", "localhost:1024", null)]
    public void An_endpoint_names_its_push_service(string text, string host, string? origin)
    {
        Assert.True(PushEndpoint.TryRead(text, out var endpoint));
        Assert.Equal(host, endpoint.Host);
        Assert.Equal(origin ?? $"https://{host}", endpoint.Origin);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("fcm.googleapis.com/x")]
    [InlineData("http://fcm.googleapis.com/x")]
    [InlineData("ftp://fcm.googleapis.com/x")]
    [InlineData("https:///x")]
    [InlineData("https://user@example.com/x")]
    [InlineData("https://user:secret@example.com/x")]
    [InlineData("https://@example.com/x")]
    [InlineData("https://example.com/x#y")]
    [InlineData("https://example.com/x y")]
    [InlineData("https://example.com\\@127.0.0.1/x")]
    [InlineData("https://exa\tmple.com/x")]
    [InlineData("https://münchen.example/x")]
    [InlineData("https://example.com:22/x")]
    [InlineData("https://example.com:80/x")]
    [InlineData("https://example.com:1023/x")]
    [InlineData("https://example.com:0/x")]
    [InlineData("https://example.com:65536/x")]
    // addresses, in each spelling that some parser takes
    [InlineData("https://127.0.0.1/x")]
    [InlineData("https://127.1/x")]
    [InlineData("https://2130706433/x")]
    [InlineData("https://0x7f000001/x")]
    [InlineData("https://0x7f.1/x")]
    [InlineData("https://0177.0.0.1/x")]
    [InlineData("https://127.0.0.1./x")]
    [InlineData("https://[::1]/x")]
    [InlineData("https://[::ffff:127.0.0.1]/x")]
    [InlineData("https://[64:ff9b::7f00:1]/x")]
    [InlineData("https://[fe80::1%25eth0]/x")]
    [InlineData("https://8.8.8.8/x")]
    [InlineData("https://example.com./x")]
    [InlineData("https://.example.com/x")]
    [InlineData("https://example..com/x")]
    public void What_could_point_inside_or_be_read_in_two_ways_is_refused(string? text) => Assert.False(PushEndpoint.TryRead(text, out _));

    [Fact]
    public void An_endpoint_has_at_most_2048_characters()
    {
        var start = "https://example.com/";

        Assert.True(PushEndpoint.TryRead(start + new string('a', 2048 - start.Length), out _));
        Assert.False(PushEndpoint.TryRead(start + new string('a', 2049 - start.Length), out _));
    }

    [Theory]
    [InlineData("https://fcm.googleapis.com/x", true)]
    [InlineData("https://FCM.googleapis.com/x", true)]
    [InlineData("https://web.push.apple.com/x", true)]
    [InlineData("https://a.b.push.apple.com:8443/x", true)]
    [InlineData("https://push.apple.com/x", false)]
    [InlineData("https://evilpush.apple.com/x", false)]
    [InlineData("https://evil.example/a.push.apple.com/", false)]
    [InlineData("https://fcm.googleapis.com.evil.example/x", false)]
    [InlineData("https://evil.example/?fcm.googleapis.com", false)]
    public void A_list_of_hosts_is_asked_by_the_parsed_name(string text, bool isAmong)
    {
        Assert.True(PushEndpoint.TryRead(text, out var endpoint));
        Assert.Equal(isAmong, endpoint.IsAmong(["fcm.googleapis.com", "*.push.apple.com"]));
        Assert.True(endpoint.IsAmong([]));
    }

    [Theory]
    [InlineData("fcm.googleapis.com", true)]
    [InlineData("*.push.apple.com", true)]
    [InlineData("localhost", true)]
    [InlineData("*", false)]
    [InlineData("", false)]
    [InlineData("https://example.com", false)]
    [InlineData("*example.com", false)]
    [InlineData("a.*.example.com", false)]
    [InlineData("127.0.0.1", false)]
    [InlineData("example.com.", false)]
    [InlineData("example.com:443", false)]
    public void What_a_list_of_hosts_may_say(string pattern, bool may) => Assert.Equal(may, PushEndpoint.IsHostPattern(pattern));
}
