using PushRelay.Limits;

namespace PushRelay.Tests.Limits;

public sealed class CellRateTests
{
    /// <summary>One in 10 seconds, 3 at once: when each may be that asks at these seconds and takes the first there is.</summary>
    [Theory]
    [InlineData("0", "0")]
    [InlineData("0 0 0", "0 0 0")]
    [InlineData("0 0 0 0 0", "0 0 0 10 20")]
    [InlineData("0 0 0 5", "0 0 0 10")]
    [InlineData("0 0 0 15 15 15", "0 0 0 15 20 30")]
    [InlineData("0 0 0 100 100 100 100", "0 0 0 100 100 100 110")]
    public void Each_takes_the_first_there_is(string asked, string given)
    {
        var rate = new CellRate(TimeSpan.FromSeconds(10), 3);
        var whole = TimeSpan.Zero;
        var taken = new List<double>();

        foreach (var second in asked.Split(' '))
        {
            var at = TimeSpan.FromSeconds(int.Parse(second, System.Globalization.CultureInfo.InvariantCulture));
            taken.Add(rate.Next(at, whole).TotalSeconds);
            whole = rate.Take(at, whole);
        }

        Assert.Equal(given, string.Join(' ', taken));
    }
}
