using System.Net;
using System.Net.Sockets;

namespace PushRelay.Push.Connections;

/// <summary>
/// Which addresses are on the public internet: what a stranger names may be connected to only there. Everything else is inside of
/// something: this machine, its network, the cloud's metadata service, a translator that leads back in.
/// </summary>
internal static class PublicAddresses
{
    // the registries of special-purpose addresses, RFC 6890 and IANA's present lists
    private static readonly IPNetwork[] Inside4 =
    [
        .. (
            (string[])
                [
                    "0.0.0.0/8",
                    "10.0.0.0/8",
                    "100.64.0.0/10",
                    "127.0.0.0/8",
                    "169.254.0.0/16",
                    "172.16.0.0/12",
                    "192.0.0.0/24",
                    "192.0.2.0/24",
                    "192.31.196.0/24",
                    "192.52.193.0/24",
                    "192.88.99.0/24",
                    "192.168.0.0/16",
                    "192.175.48.0/24",
                    "198.18.0.0/15",
                    "198.51.100.0/24",
                    "203.0.113.0/24",
                    "224.0.0.0/4",
                    "240.0.0.0/4",
                    // public by number, but answered from inside of a cloud (Azure's WireServer, Alibaba's metadata)
                    "168.63.129.16/32",
                    "100.100.100.200/32",
                ]
        ).Select(IPNetwork.Parse),
    ];

    // only 2000::/3 is given out to anybody; of it not these: Teredo and other protocols, documentation, 6to4, documentation
    private static readonly IPNetwork Given6 = IPNetwork.Parse("2000::/3");

    private static readonly IPNetwork[] Inside6 =
    [
        .. ((string[])["2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"]).Select(IPNetwork.Parse),
    ];

    // NAT64 (RFC 6052): the last four bytes are the IPv4 address that is meant
    private static readonly IPNetwork Nat64 = IPNetwork.Parse("64:ff9b::/96");

    public static bool Contains(IPAddress address)
    {
        if (address.AddressFamily == AddressFamily.InterNetwork)
        {
            return !Array.Exists(Inside4, network => network.Contains(address));
        }

        if (address.AddressFamily != AddressFamily.InterNetworkV6 || address.ScopeId != 0)
        {
            return false;
        }

        if (address.IsIPv4MappedToIPv6)
        {
            return Contains(address.MapToIPv4());
        }

        return Nat64.Contains(address)
            ? Contains(new IPAddress(address.GetAddressBytes().AsSpan(12)))
            : Given6.Contains(address) && !Array.Exists(Inside6, network => network.Contains(address));
    }
}
