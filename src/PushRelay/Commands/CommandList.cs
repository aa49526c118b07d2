using Microsoft.Extensions.Options;
using PushRelay.Apps;

namespace PushRelay.Commands;

/// <summary>The commands of the dialects that the settings have on, in the order of discovery.</summary>
internal sealed class CommandList(IEnumerable<AdHocCommand> commands, IOptions<XmppOptions> options)
{
    public IReadOnlyList<AdHocCommand> All { get; } = [.. commands.Where(c => options.Value.Dialects.Contains(c.Dialect))];

    public AdHocCommand? Find(string? node) => All.FirstOrDefault(c => c.Node == node);
}
