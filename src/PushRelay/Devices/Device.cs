using System.Globalization;
using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Metadata.Builders;
using PushRelay.Push;
using PushRelay.Secrets;

namespace PushRelay.Devices;

internal enum DeviceStatus : short
{
    Active = 0,

    /// <summary>The push network refused its token; nothing is sent until it is registered again.</summary>
    Invalid = 1,
}

/// <summary>One installation of an app, registered for one account.</summary>
internal sealed class Device
{
    public const string TableName = "devices";

    private static readonly TimeSpan ReceiptWait = TimeSpan.FromMinutes(10);
    private static readonly TimeSpan SilentAfter = TimeSpan.FromDays(1);

    /// <summary>The relay's own key: stays the same when the app's installation id changes hands.</summary>
    public required Guid Key { get; init; }

    /// <summary>What the outside calls it: the app's installation id, or one of ours. Unique within the account.</summary>
    public required string Id { get; set; }

    public required string Account { get; init; }

    public required string App { get; set; }

    public required string Platform { get; set; }

    /// <summary>HMAC of app and alert token: finds the device of a token without a token in the database.</summary>
    public required byte[] TokenIndex { get; set; }

    public required DeviceTokens Tokens { get; set; }

    /// <summary>Which of the network's environments the tokens are of, in its own word; null where it has none.</summary>
    public string? Environment { get; set; }

    /// <summary>What it is reached over; the push network names it at each registration.</summary>
    public required Lane Lane { get; set; }

    /// <summary>Binds it to the sessions of this XMPP resource, so that its own foreground is told from another device's.</summary>
    public string? Resource { get; set; }

    public string? Locale { get; set; }

    public string? TimeZone { get; set; }

    /// <summary>XEP-0357 node: 128 random bits.</summary>
    public required string Node { get; init; }

    /// <summary>The dialect that it was registered in over XMPP (<see cref="Apps.Dialects"/>); null: over REST.</summary>
    public string? Dialect { get; set; }

    public DeviceStatus Status { get; set; }

    public string? StatusReason { get; set; }

    public required DateTimeOffset CreatedAt { get; init; }

    /// <summary>The last registration: a 410 that is older says nothing about this token.</summary>
    public required DateTimeOffset RegisteredAt { get; set; }

    /// <summary>The last change by registration or preferences.</summary>
    public required DateTimeOffset UpdatedAt { get; set; }

    /// <summary>Counts every change that is not a mere observation; the ETag, and what keeps two writers from each other's
    /// change.</summary>
    public int Revision { get; set; }

    /// <summary>What the user wants of alerts here; null: nothing special. A registration leaves it alone.</summary>
    public DevicePreferences? Preferences { get; set; }

    /// <summary>The server has disabled its account: nothing is sent until it is enabled again.</summary>
    public bool AccountDisabled { get; set; }

    public DateTimeOffset? LastAcceptedAt { get; set; }

    public DateTimeOffset? LastReceivedAt { get; set; }

    /// <summary>
    /// The app says what it receives (<c>POST /v1/receipts</c>). One that did, and says nothing for a day while alerts are accepted for it,
    /// is silent.
    /// </summary>
    /// <param name="lastAccepted">The newest alert that the push network accepted for it.</param>
    /// <param name="now">The time.</param>
    public bool Confirms(DateTimeOffset? lastAccepted, DateTimeOffset now) =>
        LastReceivedAt is { } received
        && !(lastAccepted is { } accepted && accepted < now - ReceiptWait && accepted > received && received < now - SilentAfter);

    /// <summary>Names what a request can have seen of it: changes with every change that a request or a refusal makes, not with what is
    /// merely observed.</summary>
    public string RevisionName => string.Create(CultureInfo.InvariantCulture, $"{Key:N}-{Revision}");

    /// <summary>Where it is reached, with readable tokens.</summary>
    /// <exception cref="System.Security.Cryptography.CryptographicException">No key opens its tokens.</exception>
    public PushAddress Address(MasterKey masterKey) =>
        new()
        {
            App = App,
            Environment = Environment,
            Tokens = Tokens.Open(Key, masterKey),
        };

    internal sealed class Table : IEntityTypeConfiguration<Device>
    {
        public void Configure(EntityTypeBuilder<Device> builder)
        {
            builder.ToTable(TableName);
            builder.HasKey(d => d.Key);
            builder.Property(d => d.Key).ValueGeneratedNever();
            builder.Property(d => d.Id).IsRequired();
            builder.Ignore(d => d.RevisionName);
            builder.Property(d => d.Lane).HasConversion(LaneConverter.Instance);
            builder.Property(d => d.Revision).IsConcurrencyToken();
            builder.Property(d => d.Preferences).HasConversion(p => p!.ToJson(), text => DevicePreferences.FromJson(text));
            builder.Property(d => d.Tokens).HasConversion(t => t.ToJson(), text => DeviceTokens.FromJson(text));
            builder.HasIndex(d => new { d.Account, d.Id }).IsUnique();
            builder.HasIndex(d => new { d.Account, d.TokenIndex }).IsUnique();
            builder.HasIndex(d => d.TokenIndex);
            builder.HasIndex(d => d.Id);
            builder.HasIndex(d => d.Node).IsUnique();
            builder.HasIndex(d => d.RegisteredAt).HasFilter("status = 0");
        }
    }
}
