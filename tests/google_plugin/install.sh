#!/bin/sh
# The simulated plugin hashicorp/google, in a virtual environment of its own: install.sh FOLDER
# Where that cannot be, the tests that need it are skipped: this says so, and does not fail.
set -eu
folder=$1
here=$(dirname "$0")
for python in python3.11 python3 python; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    python=
done
if [ -z "$python" ]; then
    echo "the simulated Google plugin needs Python 3.11 or newer, which is not here"
    exit 0
fi
echo "installing the simulated Google plugin into $folder (a quarter of a minute, 60 MB)"
rm -rf "$folder"
"$python" -m venv "$folder"
# The bindings are read, not installed: they are 230 MB unpacked, and want Node. Their version is
# that of the schema; the library's own bounds leave protobuf alone with an older version of it.
pip="$folder/bin/pip --quiet --disable-pip-version-check"
if $pip install --progress-bar off 'tf==1.2.0' >"$folder/pip.log" 2>&1 &&
    $pip download --progress-bar off --no-deps --dest "$folder/package" \
        'cdktn-provider-google==21.1.0' >>"$folder/pip.log" 2>&1 &&
    "$folder/bin/python" "$here/simulated/extract.py" "$folder"/package/*.whl "$folder" \
        >>"$folder/pip.log" 2>&1; then
    rm -r "$folder/package"
    touch "$folder/.done"
else
    tail -n 5 "$folder/pip.log"
    rm -rf "$folder"
    echo "the simulated Google plugin cannot be installed: tests that need it are skipped"
fi
