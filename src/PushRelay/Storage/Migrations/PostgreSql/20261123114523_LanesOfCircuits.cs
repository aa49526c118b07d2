using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace PushRelay.Storage.Migrations.PostgreSql
{
    /// <inheritdoc />
    public partial class LanesOfCircuits : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropIndex(name: "ix_deliveries_pending_due", table: "deliveries");

            migrationBuilder.AddColumn<bool>(name: "sandbox", table: "deliveries", type: "boolean", nullable: false, defaultValue: false);

            migrationBuilder.AddColumn<int>(name: "delay_max_ms", table: "circuits", type: "integer", nullable: false, defaultValue: 0);

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_pending_due",
                table: "deliveries",
                columns: new[] { "app", "sandbox", "due_at" },
                filter: "state = 0"
            );

            // rows that are written and updated once each: room for the second version beside the first, and dead ones gone before they pile up
            migrationBuilder.Sql(
                "ALTER TABLE deliveries SET (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)"
            );
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropIndex(name: "ix_deliveries_pending_due", table: "deliveries");

            migrationBuilder.DropColumn(name: "sandbox", table: "deliveries");

            migrationBuilder.DropColumn(name: "delay_max_ms", table: "circuits");

            migrationBuilder.CreateIndex(
                name: "ix_deliveries_pending_due",
                table: "deliveries",
                columns: new[] { "app", "due_at" },
                filter: "state = 0"
            );
        }
    }
}
