#!/usr/bin/env bash
# package.sh [--version VERSION] [--architectures "amd64 arm64"]: makes artifacts/packages from the committed tree: Debian
# packages, self-contained archives, the NuGet package of PushRelay.Apns, and SHA256SUMS. Needs git, the .NET SDK, dpkg-deb.
set -euo pipefail
export LC_ALL=C DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1
# no build process stays behind
export DOTNET_CLI_USE_MSBUILD_SERVER=0 MSBUILDDISABLENODEREUSE=1
# files get the usual modes whoever builds
umask 022

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version="" architectures="amd64 arm64"
while [ $# -gt 0 ]; do
  case $1 in
    --version) version=${2:?} ;;
    --architectures) architectures=${2:?} ;;
    *)
      sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2
      exit 2
      ;;
  esac
  shift 2
done
for tool in git dotnet dpkg-deb gzip sha256sum; do
  command -v "$tool" >/dev/null || { echo "eng/package.sh: $tool is missing" >&2; exit 2; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$work/source
mkdir "$source"
git -C "$checkout" archive HEAD | tar -x -C "$source"
version=${version:-$(sed -n 's|.*<Version>\(.*\)</Version>.*|\1|p' "$source/Directory.Build.props")}
SOURCE_DATE_EPOCH=$(git -C "$checkout" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
packages=$checkout/artifacts/packages
rm -rf "$packages"
mkdir -p "$packages"

# refused if a package differs from the lock files; what follows adds only the runtime of each architecture
dotnet restore "$source/src/PushRelay" --locked-mode -v quiet

# publish RUNTIME FOLDER: the program with its own .NET, compiled ahead of time.
publish() {
  dotnet publish "$source/src/PushRelay" -c Release -r "$1" --self-contained -p:PublishReadyToRun=true \
    -p:Version="$version" -p:DebugType=none -o "$2" --nologo -v quiet
  rm -f "$2"/*.pdb "$2"/*.xml "$2"/createdump "$2"/libcoreclrtraceptprovider.so
  find "$2" -type f -exec chmod 0644 {} +
  chmod 0755 "$2/pushrelay"
}

archive() {
  local name=pushrelay-$version-$1
  mkdir "$work/$name"
  cp -r "$2/." "$source"/{LICENSE,README.md,CHANGELOG.md} "$work/$name"
  tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c "$name" \
    | gzip -9n >"$packages/$name.tar.gz"
}

copyright() {
  printf '%s\n' 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/' 'Upstream-Name: PushRelay' '' \
    'Files: *' 'Copyright: The PushRelay authors' 'License: Apache-2.0' ' On Debian systems the text of this license is in' \
    ' /usr/share/common-licenses/Apache-2.0.'
}

changelog() {
  printf '%s\n' "pushrelay ($version) stable; urgency=medium" '' '  * See CHANGELOG.md in this folder.' '' \
    " -- The PushRelay authors <pushrelay@localhost>  $(date -R -u -d "@$SOURCE_DATE_EPOCH")"
}

control() {
  # one line, as dpkg wants it
  local depends='Depends: libc6 (>= 2.34), libgcc-s1, libstdc++6, libicu72 | libicu76 | libicu78 | libicu74 | libicu70,'
  depends+=' libssl3 | libssl3t64, ca-certificates, systemd | systemd-standalone-sysusers'
  printf '%s\n' 'Package: pushrelay' "Version: $version" "Architecture: $1" 'Section: net' 'Priority: optional' \
    'Maintainer: The PushRelay authors <pushrelay@localhost>' "Installed-Size: $2" \
    'Pre-Depends: init-system-helpers (>= 1.54~)' \
    "$depends" \
    'Description: push relay for XMPP servers' \
    ' Sends alerts for messages and calls of Prosody, ejabberd and other XMPP servers' \
    ' to phones, over APNs, FCM, Web Push and other networks.'
}

deb() {
  local root=$work/deb-$1 doc
  doc=$root/usr/share/doc/pushrelay
  mkdir -p "$root"/{DEBIAN,etc/pushrelay,usr/bin,usr/lib/pushrelay,usr/lib/systemd/system,usr/lib/sysusers.d} "$doc"
  cp -r "$2/." "$root/usr/lib/pushrelay"
  rm "$root/usr/lib/pushrelay/appsettings.json"
  ln -s ../lib/pushrelay/pushrelay "$root/usr/bin/pushrelay"
  sed -e 's|=data/|=/var/lib/pushrelay/|' -e 's|"data/|"/var/lib/pushrelay/|' "$source/appsettings.json" \
    >"$root/etc/pushrelay/appsettings.json"
  cp "$source/eng/deb/pushrelay.service" "$root/usr/lib/systemd/system/"
  cp "$source/eng/deb/sysusers.conf" "$root/usr/lib/sysusers.d/pushrelay.conf"
  cp "$source"/docs/*.md "$source/README.md" "$doc"
  gzip -9n <"$source/CHANGELOG.md" >"$doc/CHANGELOG.md.gz"
  changelog | gzip -9n >"$doc/changelog.gz"
  copyright >"$doc/copyright"
  install -m 0755 "$source"/eng/deb/{postinst,prerm,postrm} "$root/DEBIAN/"
  echo /etc/pushrelay/appsettings.json >"$root/DEBIAN/conffiles"
  (cd "$root" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
  control "$1" "$(du -sk --apparent-size "$root" | cut -f 1)" >"$root/DEBIAN/control"
  dpkg-deb --root-owner-group -Zxz --build "$root" "$packages/pushrelay_${version}_$1.deb" >/dev/null
}

for architecture in $architectures; do
  case $architecture in
    amd64) runtime=linux-x64 ;;
    arm64) runtime=linux-arm64 ;;
    *) echo "eng/package.sh: architecture $architecture is not amd64 or arm64" >&2; exit 2 ;;
  esac
  publish "$runtime" "$work/$runtime"
  archive "$runtime" "$work/$runtime"
  deb "$architecture" "$work/$runtime"
done
dotnet pack "$source/src/PushRelay.Apns" -c Release -p:Version="$version" -o "$packages" --nologo -v quiet
(cd "$packages" && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum >SHA256SUMS)
ls -l "$packages"
