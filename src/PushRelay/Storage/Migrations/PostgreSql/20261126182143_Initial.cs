using System;
using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace PushRelay.Storage.Migrations.PostgreSql
{
    /// <inheritdoc />
    public partial class Initial : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.CreateTable(
                name: "accepting_lanes",
                columns: table => new
                {
                    lane = table.Column<string>(type: "text", nullable: false),
                    since = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_accepting_lanes", x => x.lane);
                });

            migrationBuilder.CreateTable(
                name: "account_tokens",
                columns: table => new
                {
                    id = table.Column<Guid>(type: "uuid", nullable: false),
                    account = table.Column<string>(type: "text", nullable: false),
                    hash = table.Column<byte[]>(type: "bytea", nullable: false),
                    created_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    expires_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_account_tokens", x => x.id);
                });

            migrationBuilder.CreateTable(
                name: "audit_records",
                columns: table => new
                {
                    id = table.Column<Guid>(type: "uuid", nullable: false),
                    at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    actor = table.Column<string>(type: "text", nullable: false),
                    address = table.Column<string>(type: "text", nullable: true),
                    action = table.Column<string>(type: "text", nullable: false),
                    account = table.Column<string>(type: "text", nullable: true),
                    target = table.Column<string>(type: "text", nullable: true),
                    result = table.Column<string>(type: "text", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_audit_records", x => x.id);
                });

            migrationBuilder.CreateTable(
                name: "circuits",
                columns: table => new
                {
                    lane = table.Column<string>(type: "text", nullable: false),
                    app = table.Column<string>(type: "text", nullable: false),
                    platform = table.Column<string>(type: "text", nullable: false),
                    fault = table.Column<int>(type: "integer", nullable: false),
                    code = table.Column<string>(type: "text", nullable: false),
                    opened_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    probe_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    delay_ms = table.Column<int>(type: "integer", nullable: false),
                    delay_max_ms = table.Column<int>(type: "integer", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_circuits", x => x.lane);
                });

            migrationBuilder.CreateTable(
                name: "deliveries",
                columns: table => new
                {
                    id = table.Column<Guid>(type: "uuid", nullable: false),
                    server = table.Column<string>(type: "text", nullable: false),
                    account = table.Column<string>(type: "text", nullable: false),
                    device_key = table.Column<Guid>(type: "uuid", nullable: false),
                    device = table.Column<string>(type: "text", nullable: true),
                    app = table.Column<string>(type: "text", nullable: true),
                    platform = table.Column<string>(type: "text", nullable: true),
                    lane = table.Column<string>(type: "text", nullable: true),
                    event_key = table.Column<string>(type: "text", nullable: false),
                    source = table.Column<short>(type: "smallint", nullable: false),
                    @class = table.Column<short>(name: "class", type: "smallint", nullable: false),
                    sender = table.Column<string>(type: "text", nullable: true),
                    message_id = table.Column<string>(type: "text", nullable: true),
                    stanza_id = table.Column<string>(type: "text", nullable: true),
                    event_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    message_type = table.Column<string>(type: "text", nullable: true),
                    conversation = table.Column<string>(type: "text", nullable: true),
                    call_id = table.Column<string>(type: "text", nullable: true),
                    author = table.Column<string>(type: "text", nullable: true),
                    collapse_key = table.Column<string>(type: "text", nullable: true),
                    ordering_key = table.Column<Guid>(type: "uuid", nullable: false),
                    content = table.Column<byte[]>(type: "bytea", nullable: true),
                    badge = table.Column<int>(type: "integer", nullable: false),
                    state = table.Column<short>(type: "smallint", nullable: false),
                    reason = table.Column<string>(type: "text", nullable: false),
                    situation = table.Column<string>(type: "text", nullable: true),
                    count = table.Column<int>(type: "integer", nullable: false),
                    coalesced_into = table.Column<Guid>(type: "uuid", nullable: true),
                    status = table.Column<int>(type: "integer", nullable: true),
                    code = table.Column<string>(type: "text", nullable: true),
                    provider_id = table.Column<string>(type: "text", nullable: true),
                    answer_ms = table.Column<int>(type: "integer", nullable: true),
                    attempts = table.Column<int>(type: "integer", nullable: false),
                    attempts_excused = table.Column<int>(type: "integer", nullable: false),
                    created_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    due_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    expires_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    settled_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: true),
                    received_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: true),
                    opened_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: true),
                    lease = table.Column<Guid>(type: "uuid", nullable: true),
                    lease_until = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_deliveries", x => x.id);
                    table.CheckConstraint("deliveries_coalesced_into_its_head", "(state <> 6 OR coalesced_into IS NOT NULL) AND (state IN (1, 6) OR coalesced_into IS NULL)");
                    table.CheckConstraint("deliveries_content_until_settled", "state IN (0, 1) OR content IS NULL");
                    table.CheckConstraint("deliveries_lease_iff_sending", "(state = 1) = (lease IS NOT NULL) AND (state = 1) = (lease_until IS NOT NULL)");
                    table.CheckConstraint("deliveries_sent_to_a_device", "state NOT IN (0, 1, 2, 3, 4) OR (device IS NOT NULL AND app IS NOT NULL AND platform IS NOT NULL AND lane IS NOT NULL)");
                    table.CheckConstraint("deliveries_settled_iff_final", "(state IN (0, 1)) = (settled_at IS NULL)");
                });

            migrationBuilder.CreateTable(
                name: "devices",
                columns: table => new
                {
                    key = table.Column<Guid>(type: "uuid", nullable: false),
                    id = table.Column<string>(type: "text", nullable: false),
                    account = table.Column<string>(type: "text", nullable: false),
                    app = table.Column<string>(type: "text", nullable: false),
                    platform = table.Column<string>(type: "text", nullable: false),
                    token_index = table.Column<byte[]>(type: "bytea", nullable: false),
                    tokens = table.Column<string>(type: "text", nullable: false),
                    environment = table.Column<string>(type: "text", nullable: true),
                    lane = table.Column<string>(type: "text", nullable: false),
                    resource = table.Column<string>(type: "text", nullable: true),
                    locale = table.Column<string>(type: "text", nullable: true),
                    time_zone = table.Column<string>(type: "text", nullable: true),
                    node = table.Column<string>(type: "text", nullable: false),
                    dialect = table.Column<string>(type: "text", nullable: true),
                    status = table.Column<short>(type: "smallint", nullable: false),
                    status_reason = table.Column<string>(type: "text", nullable: true),
                    created_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    registered_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    updated_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    revision = table.Column<int>(type: "integer", nullable: false),
                    preferences = table.Column<string>(type: "text", nullable: true),
                    account_disabled = table.Column<bool>(type: "boolean", nullable: false),
                    last_accepted_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: true),
                    last_received_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_devices", x => x.key);
                });

            migrationBuilder.CreateTable(
                name: "history",
                columns: table => new
                {
                    id = table.Column<Guid>(type: "uuid", nullable: false),
                    server = table.Column<string>(type: "text", nullable: false),
                    account = table.Column<string>(type: "text", nullable: true),
                    kind = table.Column<short>(type: "smallint", nullable: false),
                    at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    data = table.Column<string>(type: "text", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_history", x => x.id);
                });

            migrationBuilder.CreateTable(
                name: "known_keys",
                columns: table => new
                {
                    id = table.Column<int>(type: "integer", nullable: false),
                    fingerprint = table.Column<string>(type: "character varying(64)", maxLength: 64, nullable: false),
                    naming = table.Column<byte[]>(type: "bytea", nullable: false),
                    created_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_known_keys", x => x.id);
                    table.CheckConstraint("known_keys_only_one", "id = 1");
                });

            migrationBuilder.CreateTable(
                name: "leases",
                columns: table => new
                {
                    name = table.Column<string>(type: "character varying(300)", maxLength: 300, nullable: false),
                    holder = table.Column<string>(type: "character varying(200)", maxLength: 200, nullable: false),
                    term = table.Column<long>(type: "bigint", nullable: false),
                    expires_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    awaited_until = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    in_use = table.Column<bool>(type: "boolean", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_leases", x => x.name);
                });

            migrationBuilder.CreateTable(
                name: "provider_tokens",
                columns: table => new
                {
                    team_id = table.Column<string>(type: "text", nullable: false),
                    key_id = table.Column<string>(type: "text", nullable: false),
                    token = table.Column<byte[]>(type: "bytea", nullable: false),
                    issued_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_provider_tokens", x => new { x.team_id, x.key_id });
                });

            migrationBuilder.CreateTable(
                name: "sessions",
                columns: table => new
                {
                    server = table.Column<string>(type: "text", nullable: false),
                    node = table.Column<string>(type: "text", nullable: false),
                    sid = table.Column<string>(type: "text", nullable: false),
                    account = table.Column<string>(type: "text", nullable: false),
                    resource = table.Column<string>(type: "text", nullable: false),
                    state = table.Column<int>(type: "integer", nullable: false),
                    available = table.Column<bool>(type: "boolean", nullable: false),
                    priority = table.Column<int>(type: "integer", nullable: false),
                    show = table.Column<string>(type: "text", nullable: true),
                    since = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_sessions", x => new { x.server, x.node, x.sid });
                });

            migrationBuilder.CreateTable(
                name: "stream_positions",
                columns: table => new
                {
                    server = table.Column<string>(type: "text", nullable: false),
                    node = table.Column<string>(type: "text", nullable: false),
                    epoch = table.Column<string>(type: "text", nullable: false),
                    seq = table.Column<long>(type: "bigint", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_stream_positions", x => new { x.server, x.node });
                });

            migrationBuilder.CreateTable(
                name: "streams",
                columns: table => new
                {
                    server = table.Column<string>(type: "text", nullable: false),
                    node = table.Column<string>(type: "text", nullable: false),
                    software = table.Column<string>(type: "character varying(100)", maxLength: 100, nullable: false),
                    module = table.Column<string>(type: "character varying(100)", maxLength: 100, nullable: false),
                    dropped = table.Column<long>(type: "bigint", nullable: false),
                    sessions = table.Column<int>(type: "integer", nullable: false),
                    heard_at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    live = table.Column<bool>(type: "boolean", nullable: false),
                    as_of = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_streams", x => new { x.server, x.node });
                });

            migrationBuilder.CreateTable(
                name: "unread_counts",
                columns: table => new
                {
                    account = table.Column<string>(type: "text", nullable: false),
                    conversation = table.Column<string>(type: "text", nullable: false),
                    count = table.Column<int>(type: "integer", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_unread_counts", x => new { x.account, x.conversation });
                });

            migrationBuilder.CreateTable(
                name: "used_keys",
                columns: table => new
                {
                    hash = table.Column<byte[]>(type: "bytea", nullable: false),
                    body = table.Column<byte[]>(type: "bytea", nullable: false),
                    at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_used_keys", x => x.hash);
                });

            migrationBuilder.CreateTable(
                name: "attempts",
                columns: table => new
                {
                    delivery_id = table.Column<Guid>(type: "uuid", nullable: false),
                    number = table.Column<int>(type: "integer", nullable: false),
                    at = table.Column<DateTimeOffset>(type: "timestamp with time zone", nullable: false),
                    duration_ms = table.Column<int>(type: "integer", nullable: false),
                    status = table.Column<int>(type: "integer", nullable: true),
                    code = table.Column<string>(type: "text", nullable: true),
                    outcome = table.Column<string>(type: "text", nullable: false),
                    provider_id = table.Column<string>(type: "text", nullable: true)
                },
                constraints: table =>
                {
                    table.PrimaryKey("pk_attempts", x => new { x.delivery_id, x.number });
                    table.ForeignKey(
                        name: "fk_attempts_deliveries",
                        column: x => x.delivery_id,
                        principalTable: "deliveries",
                        principalColumn: "id",
                        onDelete: ReferentialAction.Cascade);
                });

            migrationBuilder.CreateIndex(
                name: "ix_account_tokens_account_id",
                table: "account_tokens",
                columns: new[] { "account", "id" });

            migrationBuilder.CreateIndex(
                name: "ix_account_tokens_expires_at",
                table: "account_tokens",
                column: "expires_at");

            migrationBuilder.CreateIndex(
                name: "ix_account_tokens_hash",
                table: "account_tokens",
                column: "hash",
                unique: true);

            migrationBuilder.CreateIndex(
                name: "ix_audit_records_account_id",
                table: "audit_records",
                columns: new[] { "account", "id" });

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_account_id",
                table: "deliveries",
                columns: new[] { "account", "id" });

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_account_message_id_id",
                table: "deliveries",
                columns: new[] { "account", "message_id", "id" },
                filter: "message_id IS NOT NULL");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_account_stanza_id_id",
                table: "deliveries",
                columns: new[] { "account", "stanza_id", "id" },
                filter: "stanza_id IS NOT NULL");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_pending_account",
                table: "deliveries",
                column: "account",
                filter: "state = 0");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_pending_due",
                table: "deliveries",
                columns: new[] { "lane", "due_at" },
                filter: "state = 0");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_pending_expires",
                table: "deliveries",
                column: "expires_at",
                filter: "state = 0");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_pending_key",
                table: "deliveries",
                columns: new[] { "device_key", "ordering_key", "id" },
                filter: "state = 0");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_sending_key",
                table: "deliveries",
                columns: new[] { "device_key", "ordering_key" },
                unique: true,
                filter: "state = 1 AND coalesced_into IS NULL");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_sending_lease",
                table: "deliveries",
                column: "lease_until",
                filter: "state = 1");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_server_account_device_key_event_key",
                table: "deliveries",
                columns: new[] { "server", "account", "device_key", "event_key" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "ix_devices_account_id",
                table: "devices",
                columns: new[] { "account", "id" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "ix_devices_account_token_index",
                table: "devices",
                columns: new[] { "account", "token_index" },
                unique: true);

            migrationBuilder.CreateIndex(
                name: "ix_devices_id",
                table: "devices",
                column: "id");

            migrationBuilder.CreateIndex(
                name: "ix_devices_node",
                table: "devices",
                column: "node",
                unique: true);

            migrationBuilder.CreateIndex(
                name: "ix_devices_registered_at",
                table: "devices",
                column: "registered_at",
                filter: "status = 0");

            migrationBuilder.CreateIndex(
                name: "ix_devices_token_index",
                table: "devices",
                column: "token_index");

            migrationBuilder.CreateIndex(
                name: "ix_history_account_id",
                table: "history",
                columns: new[] { "account", "id" },
                filter: "account IS NOT NULL");

            migrationBuilder.CreateIndex(
                name: "ix_history_server_id",
                table: "history",
                columns: new[] { "server", "id" },
                filter: "account IS NULL");

            migrationBuilder.CreateIndex(
                name: "ix_sessions_account",
                table: "sessions",
                column: "account");

            migrationBuilder.CreateIndex(
                name: "ix_used_keys_at",
                table: "used_keys",
                column: "at");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropTable(
                name: "accepting_lanes");

            migrationBuilder.DropTable(
                name: "account_tokens");

            migrationBuilder.DropTable(
                name: "attempts");

            migrationBuilder.DropTable(
                name: "audit_records");

            migrationBuilder.DropTable(
                name: "circuits");

            migrationBuilder.DropTable(
                name: "devices");

            migrationBuilder.DropTable(
                name: "history");

            migrationBuilder.DropTable(
                name: "known_keys");

            migrationBuilder.DropTable(
                name: "leases");

            migrationBuilder.DropTable(
                name: "provider_tokens");

            migrationBuilder.DropTable(
                name: "sessions");

            migrationBuilder.DropTable(
                name: "stream_positions");

            migrationBuilder.DropTable(
                name: "streams");

            migrationBuilder.DropTable(
                name: "unread_counts");

            migrationBuilder.DropTable(
                name: "used_keys");

            migrationBuilder.DropTable(
                name: "deliveries");
        }
    }
}
