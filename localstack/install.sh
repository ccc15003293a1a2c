#!/bin/sh
# LocalStack from packages, in a virtual environment of its own: install.sh FOLDER
# Where that cannot be, moto's server stands in for it: this says so, and does not fail.
set -eu
folder=$1
for python in python3.11 python3 python; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    [ "$version" != 3.11 ] || break
done
if [ "${version:-}" != 3.11 ]; then
    echo "LocalStack needs Python 3.11, which is not here: moto's server stands in for it"
    exit 0
fi
echo "installing LocalStack into $folder (half a minute, 500 MB)"
rm -rf "$folder"
"$python" -m venv "$folder"
# Later versions need another Python, or an account. Without the three further pins it finds none
# of its own plugins.
if "$folder/bin/pip" install --quiet --disable-pip-version-check --progress-bar off \
    'localstack-core[runtime]==4.13.1' 'cbor2<6' 'pyopenssl<26' service-identity \
    >"$folder/pip.log" 2>&1; then
    touch "$folder/.done"
else
    tail -n 5 "$folder/pip.log"
    rm -rf "$folder"
    echo "LocalStack cannot be installed: moto's server stands in for it"
fi
