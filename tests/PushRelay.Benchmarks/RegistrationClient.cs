using System.Buffers.Text;
using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using PushRelay.Rig;

namespace PushRelay.Benchmarks;

/// <summary>
/// HTTP/1.1 over connections that all stay open, by hand: a client library would cost more than what is measured. Every second device is a
/// POST, the others a PUT under an installation id.
/// </summary>
internal sealed class RegistrationClient(Uri address, int connections)
{
    private readonly List<NetworkStream> streams = [];

    public async Task ConnectAsync(CancellationToken cancellationToken)
    {
        while (streams.Count < connections)
        {
            var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            await socket.ConnectAsync(address.Host, address.Port, cancellationToken);
            streams.Add(new NetworkStream(socket, ownsSocket: true));
        }
    }

    /// <summary>Registers the devices <paramref name="first"/> and following, each connection its share.</summary>
    /// <returns>For each its status, and the time from when it was due (with a rate) or sent until the whole answer was there.</returns>
    public async Task<IReadOnlyList<(int Status, double Milliseconds)>> RunAsync(
        int first,
        int count,
        double? perSecond,
        CancellationToken cancellationToken
    )
    {
        var answers = new (int Status, double Milliseconds)[count];
        var started = Stopwatch.GetTimestamp();
        await Task.WhenAll(
            streams.Select(
                (stream, connection) =>
                    Task.Run(
                        async () =>
                        {
                            var buffer = new byte[16 * 1024];
                            for (var i = connection; i < count; i += streams.Count)
                            {
                                var due = Stopwatch.GetTimestamp();
                                if (perSecond is { } rate)
                                {
                                    due = started + (long)(i / rate * Stopwatch.Frequency);
                                    var early = Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), due);
                                    if (early > TimeSpan.Zero)
                                    {
                                        await Task.Delay(early, TimeProvider.System, cancellationToken);
                                    }
                                }

                                await stream.WriteAsync(Request(first + i), cancellationToken);
                                answers[i] = (
                                    await ReadAsync(stream, buffer, cancellationToken),
                                    Stopwatch.GetElapsedTime(due).TotalMilliseconds
                                );
                            }
                        },
                        cancellationToken
                    )
            )
        );
        return answers;
    }

    private byte[] Request(int device)
    {
        var body = $$"""
            {"account":"{{Rehearsal.Account(device)}}","app":"{{Rehearsal.App}}","platform":"apns",
            "token":"{{Rehearsal.Token(device)}}","resource":"phone","timeZone":"Asia/Shanghai"}
            """;
        var line = device % 2 == 0 ? "POST /v1/devices" : string.Create(CultureInfo.InvariantCulture, $"PUT /v1/devices/phone-{device}");
        return Encoding.ASCII.GetBytes(
            string.Create(
                CultureInfo.InvariantCulture,
                $"{line} HTTP/1.1\r\nHost: {address.Authority}\r\nAuthorization: Bearer {Rehearsal.OperatorKey}\r\nContent-Type: "
                    + $"application/json\r\nContent-Length: {body.Length}\r\n\r\n{body}"
            )
        );
    }

    /// <summary>One whole answer, in chunks or of a length.</summary>
    private static async Task<int> ReadAsync(NetworkStream stream, byte[] buffer, CancellationToken cancellationToken)
    {
        var length = 0;
        while (true)
        {
            var read = await stream.ReadAsync(buffer.AsMemory(length), cancellationToken);
            length += read > 0 ? read : throw new IOException("The relay closed a connection.");
            if (IsWhole(buffer.AsSpan(0, length)))
            {
                return Utf8Parser.TryParse(buffer.AsSpan("HTTP/1.1 ".Length), out int status, out _)
                    ? status
                    : throw new IOException("The relay answered no HTTP.");
            }
        }
    }

    private static bool IsWhole(ReadOnlySpan<byte> answer)
    {
        var head = answer.IndexOf("\r\n\r\n"u8) + 4;
        if (head < 4)
        {
            return false;
        }

        var named = answer[..head].IndexOf("Content-Length: "u8);
        return named < 0
            ? answer.EndsWith("0\r\n\r\n"u8)
            : Utf8Parser.TryParse(answer[(named + "Content-Length: ".Length)..], out int body, out _) && answer.Length >= head + body;
    }
}
