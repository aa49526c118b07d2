# syntax=docker/dockerfile:1
# PushRelay in a container: .NET's chiseled image of Ubuntu, "extra" because that one has ICU (account names are normalised
# with it) and time zones. It has no shell and no package manager; it runs as user 1654 and needs nothing writable but /data
# (SQLite and the master key, where they are kept there) and /tmp. Needs BuildKit.

FROM --platform=$BUILDPLATFORM mcr.microsoft.com/dotnet/sdk:10.0 AS build
WORKDIR /source
# first only what the restore depends on, so that a change of code does not restore again; locked: the packages whose hashes are
# in the repository, or none. No architecture: what is published runs on each, and the lock files know none
COPY global.json Directory.Build.props Directory.Packages.props ./
COPY src/PushRelay/PushRelay.csproj src/PushRelay/packages.lock.json src/PushRelay/
COPY src/PushRelay.Xmpp/PushRelay.Xmpp.csproj src/PushRelay.Xmpp/packages.lock.json src/PushRelay.Xmpp/
COPY src/PushRelay.Apns/PushRelay.Apns.csproj src/PushRelay.Apns/packages.lock.json src/PushRelay.Apns/
COPY src/PushRelay.Apns.Simulator/PushRelay.Apns.Simulator.csproj src/PushRelay.Apns.Simulator/packages.lock.json src/PushRelay.Apns.Simulator/
RUN dotnet restore src/PushRelay --locked-mode
COPY .editorconfig BannedSymbols.txt appsettings.json ./
COPY src src
RUN dotnet publish src/PushRelay -c Release --no-restore -p:UseAppHost=false -o /app
# the defaults of a container; a settings file (--config) or the environment overrides them as everywhere
RUN sed -i -e 's|http://127.0.0.1:8080|http://0.0.0.0:8080|' -e 's|=data/|=/data/|' -e 's|"data/|"/data/|' /app/appsettings.json \
 && mkdir /data

FROM mcr.microsoft.com/dotnet/aspnet:10.0-noble-chiseled-extra
# the settings say where to listen; the base image's variable would only cause a warning
ENV ASPNETCORE_HTTP_PORTS=
# buffers kept for reuse: a push then allocates about half (docs/apns.md)
ENV DOTNET_SYSTEM_BUFFERS_SHAREDARRAYPOOL_MAXARRAYSPERPARTITION=1024
# 32 MB between two collections: less CPU under load, some MB more memory (docs/performance.md)
ENV DOTNET_GCgen0size=0x2000000
# two heaps of the C library instead of one for each thread: with SQLite 40 MB less memory under load
ENV MALLOC_ARENA_MAX=2
COPY --from=build /app /app
COPY --from=build --chown=1654:1654 --chmod=0700 /data /data
USER 1654
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["dotnet", "/app/pushrelay.dll"]
# no shell and no curl to ask with: the program asks itself
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s CMD ["dotnet", "/app/pushrelay.dll", "health"]
