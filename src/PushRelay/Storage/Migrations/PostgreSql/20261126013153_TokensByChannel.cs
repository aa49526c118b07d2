using Microsoft.EntityFrameworkCore.Migrations;

#nullable disable

namespace PushRelay.Storage.Migrations.PostgreSql
{
    /// <inheritdoc />
    public partial class TokensByChannel : Migration
    {
        /// <inheritdoc />
        protected override void Up(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.DropColumn(
                name: "token",
                table: "devices");

            migrationBuilder.DropColumn(
                name: "voip_token",
                table: "devices");

            migrationBuilder.RenameColumn(
                name: "token_hint",
                table: "devices",
                newName: "tokens");

            migrationBuilder.AlterColumn<string>(
                name: "environment",
                table: "devices",
                type: "text",
                nullable: true,
                oldClrType: typeof(short),
                oldType: "smallint");
        }

        /// <inheritdoc />
        protected override void Down(MigrationBuilder migrationBuilder)
        {
            migrationBuilder.RenameColumn(
                name: "tokens",
                table: "devices",
                newName: "token_hint");

            migrationBuilder.AlterColumn<short>(
                name: "environment",
                table: "devices",
                type: "smallint",
                nullable: false,
                defaultValue: (short)0,
                oldClrType: typeof(string),
                oldType: "text",
                oldNullable: true);

            migrationBuilder.AddColumn<byte[]>(
                name: "token",
                table: "devices",
                type: "bytea",
                nullable: false,
                defaultValue: new byte[0]);

            migrationBuilder.AddColumn<byte[]>(
                name: "voip_token",
                table: "devices",
                type: "bytea",
                nullable: true);
        }
    }
}
