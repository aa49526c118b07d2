using System.Net.Mime;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;

namespace PushRelay.Api;

/// <summary>What a route takes and answers, as an example; in JSON.</summary>
internal sealed record ApiExample(string? Request, string? Answer);

/// <summary>The REST interface's description, <c>/openapi/v1.json</c>, and a page that shows it, <c>/docs</c>, without anything from
/// elsewhere.</summary>
internal static partial class ApiDocument
{
    public const string Name = "v1";
    private const string Bearer = "bearer";
    private const string ProblemJson = "application/problem+json";

    private static readonly string Page = ReadPage();
    private static readonly string PagePolicy =
        "default-src 'none'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
        + $"script-src {HashOf("script")}; style-src {HashOf("style")}";

    /// <summary>Routes under a common path, whose refusals are declared.</summary>
    public static RouteGroupBuilder MapApi(this IEndpointRouteBuilder routes, string path, string tag)
    {
        var group = routes.MapGroup(path).WithTags(tag);
        int[] refusals = [400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503];
        foreach (var status in refusals)
        {
            group.ProducesProblem(status);
        }

        return group;
    }

    /// <summary>Declares the body, which the route reads itself.</summary>
    public static RouteHandlerBuilder Takes<T>(this RouteHandlerBuilder route, params string[] otherTypes)
        where T : notnull => route.Accepts<T>(MediaTypeNames.Application.Json, otherTypes);

    public static RouteHandlerBuilder WithExample(this RouteHandlerBuilder route, string? request, string? answer) =>
        route.WithMetadata(new ApiExample(request, answer));

    public static void Configure(OpenApiOptions options)
    {
        options.OpenApiVersion = OpenApiSpecVersion.OpenApi3_1;
        options.AddDocumentTransformer(
            (document, _, _) =>
            {
                document.Info = new OpenApiInfo
                {
                    Title = "PushRelay",
                    Version = typeof(ApiDocument).Assembly.GetName().Version?.ToString(3) ?? "",
                    Description = "Push alerts for XMPP accounts whose user is not looking at the app.",
                    License = new OpenApiLicense { Name = "Apache-2.0" },
                };
                // relative to where it is read from: behind a proxy the relay does not know its name
                document.Servers = [new OpenApiServer { Url = "/" }];
                document.Components ??= new OpenApiComponents();
                document.Components.SecuritySchemes = new Dictionary<string, IOpenApiSecurityScheme>
                {
                    [Bearer] = new OpenApiSecurityScheme
                    {
                        Type = SecuritySchemeType.Http,
                        Scheme = Bearer,
                        Description = "An account token (pra_...), a JWT of the operator's identity provider, or an operator key.",
                    },
                };
                document.Security = [new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(Bearer, document)] = [] }];
                return Task.CompletedTask;
            }
        );
        options.AddOperationTransformer(
            (operation, context, _) =>
            {
                if (context.Description.ActionDescriptor.EndpointMetadata.OfType<ApiExample>().FirstOrDefault() is { } example)
                {
                    Show(operation.RequestBody?.Content?.Values, example.Request);
                    foreach (var (status, response) in operation.Responses ?? [])
                    {
                        Show(status.StartsWith('2') ? response.Content?.Values : null, example.Answer);
                    }
                }

                foreach (var (status, response) in operation.Responses ?? [])
                {
                    Show(
                        response.Content?.Where(c => c.Key == ProblemJson).Select(c => c.Value),
                        $$"""
                        {"type":"urn:pushrelay:problem:CODE","title":"...","status":{{status}},"code":"CODE",
                         "traceId":"161b0c802c78deed7778725de031df1b"}
                        """
                    );
                }

                return Task.CompletedTask;
            }
        );
    }

    public static void Map(WebApplication app)
    {
        // any other name of a document would be repeated in the refusal
        app.MapOpenApi("/openapi/{documentName:regex(^v1$)}.json").AllowAnonymous();
        app.MapGet(
                "/docs",
                (HttpContext http) =>
                {
                    http.Response.Headers.ContentSecurityPolicy = PagePolicy;
                    return TypedResults.Content(Page, "text/html; charset=utf-8");
                }
            )
            .AllowAnonymous()
            .ExcludeFromDescription();
    }

    private static void Show(IEnumerable<OpenApiMediaType>? contents, string? json)
    {
        foreach (var content in contents ?? [])
        {
            content.Example = json is null ? null : JsonNode.Parse(json);
        }
    }

    private static string ReadPage()
    {
        using var resource = typeof(ApiDocument).Assembly.GetManifestResourceStream("docs.html")!;
        using var reader = new StreamReader(resource);
        return reader.ReadToEnd();
    }

    /// <summary>Only what stands in the page runs (CSP level 2).</summary>
    private static string HashOf(string element)
    {
        var text = Inline().Matches(Page).Single(match => match.Groups[1].Value == element).Groups[2].Value;
        return $"'sha256-{Convert.ToBase64String(SHA256.HashData(Encoding.UTF8.GetBytes(text)))}'";
    }

    [GeneratedRegex("<(script|style)>(.*?)</", RegexOptions.Singleline)]
    private static partial Regex Inline();
}
