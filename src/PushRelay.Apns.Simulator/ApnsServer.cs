using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Logging;
using PushRelay.Apns.Simulator.Http2;

namespace PushRelay.Apns.Simulator;

/// <summary>The APNs port: accepts connections, hands each request to the desk, does with the answer what the script orders.</summary>
internal sealed partial class ApnsServer : IAsyncDisposable
{
    private const int ConnectionsMax = 1000;
    private static readonly TimeSpan HandshakeMax = TimeSpan.FromSeconds(10);

    private readonly ApnsSimulatorOptions options;
    private readonly AnswerDesk desk;
    private readonly SslServerAuthenticationOptions tls;
    private readonly TcpListener listener;
    private readonly DelayLine delays;
    private readonly ILogger logger;
    private readonly CancellationTokenSource stopping = new();
    private readonly Lock sync = new();
    private readonly Dictionary<ServerConnection, Task> connections = [];
    private readonly Task accepting;
    private int accepted;
    private int refusedBefore;
    private volatile int streamsMax;

    public ApnsServer(ApnsSimulatorOptions options, X509Certificate2 certificate, AnswerDesk desk)
    {
        this.options = options;
        this.desk = desk;
        logger = options.Logger;
        this.streamsMax = options.StreamsMax;
        delays = new DelayLine(options.Clock);
        this.tls = new SslServerAuthenticationOptions
        {
            ServerCertificateContext = SslStreamCertificateContext.Create(certificate, null, offline: true),
            ApplicationProtocols = [SslApplicationProtocol.Http2],
            ClientCertificateRequired = options.ClientCertificates.Count > 0,
            // Which certificate may push is judged at each request, with Apple's reason: the handshake takes any, or none.
            RemoteCertificateValidationCallback = (_, certificate, _, _) => certificate is null || options.ClientCertificates.Count > 0,
        };
        listener = new TcpListener(options.Address, options.Port);
        listener.Start(512);
        accepting = AcceptAsync();
    }

    public IPEndPoint EndPoint => (IPEndPoint)listener.LocalEndpoint;

    /// <summary>TCP connections since the start.</summary>
    public int Accepted => Volatile.Read(ref accepted);

    public int StreamsRefused
    {
        get
        {
            lock (sync)
            {
                return refusedBefore + connections.Keys.Sum(connection => connection.Streams.StreamsRefused);
            }
        }
    }

    public IReadOnlyList<ServerConnection> Connections
    {
        get
        {
            lock (sync)
            {
                return [.. connections.Keys];
            }
        }
    }

    /// <summary>From now on, for connections that are let in, those open included.</summary>
    public void SetStreamsMax(int streamsMax)
    {
        this.streamsMax = streamsMax;
        foreach (var connection in Connections.Where(connection => connection.Streams.StreamsMax != this.options.StreamsBeforeFirstAnswer))
        {
            connection.Streams.SetStreamsMax(streamsMax);
        }
    }

    public void Strike(ApnsFault fault)
    {
        foreach (var connection in Connections)
        {
            Action<ServerConnection> strike = fault switch
            {
                ApnsFault.GoAway => hit => hit.Streams.GoAway(),
                ApnsFault.Close => hit => hit.Close(),
                ApnsFault.Abort => hit => hit.Abort(),
                ApnsFault.HalfClose => hit => hit.HalfClose(),
                ApnsFault.Freeze => hit => hit.Streams.Freeze(),
                ApnsFault.None or ApnsFault.Reset or ApnsFault.Refuse or ApnsFault.GoAwayTwice or ApnsFault.Stall or ApnsFault.CutAnswer =>
                    throw new ArgumentException($"{fault} strikes a request, not a connection.", nameof(fault)),
            };
            strike(connection);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await stopping.CancelAsync();
        listener.Dispose();
        await accepting;
        await delays.DisposeAsync();
        Task[] running;
        lock (sync)
        {
            running = [.. connections.Values];
        }

        foreach (var connection in Connections)
        {
            connection.Abort();
        }

        await Task.WhenAll(running);
        stopping.Dispose();
    }

    private async Task AcceptAsync()
    {
        while (!stopping.IsCancellationRequested)
        {
            Socket socket;
            try
            {
                socket = await listener.AcceptSocketAsync(stopping.Token);
            }
            catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
            {
                continue;
            }

            var number = Interlocked.Increment(ref accepted);
            if (Connections.Count >= ConnectionsMax)
            {
                socket.Dispose();
                continue;
            }

            _ = ServeAsync(number, socket);
        }
    }

    private async Task ServeAsync(int number, Socket socket)
    {
        socket.NoDelay = true;
        var tls = new SslStream(new NetworkStream(socket, ownsSocket: true));
        try
        {
            using var patience = CancellationTokenSource.CreateLinkedTokenSource(stopping.Token);
            patience.CancelAfter(HandshakeMax);
            await tls.AuthenticateAsServerAsync(this.tls, patience.Token);
            if (tls.NegotiatedApplicationProtocol != SslApplicationProtocol.Http2)
            {
                throw new IOException("The peer does not speak HTTP/2.");
            }
        }
        catch (Exception exception)
            when (exception is IOException or OperationCanceledException or System.Security.Authentication.AuthenticationException)
        {
            HandshakeFailed(number, exception.Message);
            await tls.DisposeAsync();
            return;
        }

        var certificate = tls.RemoteCertificate as X509Certificate2;
        var peer = new Peer(this, new ApnsCaller(number, certificate));
        using var connection = new ServerConnection(number, socket, tls, this.options.StreamsBeforeFirstAnswer, peer, logger);
        var over = new TaskCompletionSource();
        lock (sync)
        {
            if (stopping.IsCancellationRequested)
            {
                return;
            }

            connections.Add(connection, over.Task);
        }

        await connection.RunAsync();
        lock (sync)
        {
            connections.Remove(connection);
            refusedBefore += connection.Streams.StreamsRefused;
        }

        over.SetResult();
    }

    private void Perform(ServerConnection connection, int streamId, Verdict verdict)
    {
        try
        {
            if (verdict.LetIn && connection.Streams.StreamsMax != this.streamsMax)
            {
                connection.Streams.SetStreamsMax(this.streamsMax);
            }

            switch (verdict.Fault?.Fault ?? ApnsFault.None)
            {
                case ApnsFault.None:
                    connection.Streams.Answer(streamId, verdict.Status, verdict.Headers, verdict.Body);
                    break;
                case ApnsFault.Reset:
                    connection.Streams.Reset(streamId, (Http2Error)(verdict.Fault!.ErrorCode ?? (uint)Http2Error.InternalError));
                    break;
                case ApnsFault.Refuse:
                    connection.Streams.Reset(streamId, Http2Error.RefusedStream);
                    break;
                case ApnsFault.GoAway or ApnsFault.GoAwayTwice:
                    if (verdict.Fault!.Processed)
                    {
                        connection.Streams.Answer(streamId, verdict.Status, verdict.Headers, verdict.Body);
                    }

                    break;
                case ApnsFault.CutAnswer:
                    var body = verdict.Body.Length > 1 ? verdict.Body : "{\"reason\":\"None\"}"u8.ToArray();
                    connection.Streams.Answer(streamId, verdict.Status, verdict.Headers, body, sentBytesMax: body.Length / 2);
                    connection.Close();
                    break;
                case ApnsFault.Close:
                    connection.Close();
                    break;
                case ApnsFault.Abort:
                    connection.Abort();
                    break;
                case ApnsFault.HalfClose:
                    connection.HalfClose();
                    break;
                case ApnsFault.Freeze:
                    connection.Streams.Freeze();
                    break;
                case ApnsFault.Stall:
                    break;
            }
        }
        catch (Http2ConnectionException)
        {
            connection.Abort();
        }
    }

    /// <summary>At once, though the answers may take their time: what comes after it must not be processed.</summary>
    private static void GoAway(ServerConnection connection, int streamId, ScriptRule rule)
    {
        var debugData = rule.Reason is { } reason ? $$"""{"reason":"{{reason}}"}""" : null;
        var last = connection.Streams.GoAway(
            rule.Processed ? streamId : streamId - 2,
            (Http2Error)(rule.ErrorCode ?? 0),
            debugData,
            rule.Fault == ApnsFault.GoAwayTwice
        );
        if (!rule.Processed && last >= streamId)
        {
            connection.Streams.Reset(streamId, Http2Error.RefusedStream);
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "Connection {Number} did not come about: {Problem}")]
    private partial void HandshakeFailed(int number, string problem);

    /// <summary>The other end of one connection.</summary>
    private sealed class Peer(ApnsServer server, ApnsCaller caller) : IRequestHandler
    {
        public void Handle(ServerConnection connection, ServerStream stream)
        {
            if (!connection.Streams.Takes(stream.Id))
            {
                return;
            }

            var (method, path) = ("", "");
            foreach (var header in stream.Headers)
            {
                (method, path) = header.Name switch
                {
                    ":method" => (header.Value, path),
                    ":path" => (method, header.Value),
                    _ => (method, path),
                };
            }

            var verdict = server.desk.Decide(new ApnsRequest(method, path, stream.Headers, stream.Body, stream.BodyBytes, caller));
            if (verdict.IsProcessed)
            {
                connection.Streams.MarkProcessed(stream.Id);
            }

            if (verdict.Fault is { Fault: ApnsFault.GoAway or ApnsFault.GoAwayTwice } rule)
            {
                GoAway(connection, stream.Id, rule);
            }

            if (verdict.Delay == TimeSpan.Zero)
            {
                server.Perform(connection, stream.Id, verdict);
            }
            else
            {
                server.delays.Add(
                    verdict.Delay,
                    () =>
                    {
                        server.Perform(connection, stream.Id, verdict);
                        connection.Flush();
                    }
                );
            }
        }
    }
}
