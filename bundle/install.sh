#!/bin/sh
# Installs the bundle into a folder, without a network:
#
#   eval "$(sh install.sh FOLDER)"
#
# The Python on the path, or $PYTHON, must be 3.12 and have torch, torchvision, numpy, safetensors
# and filelock. Nothing is written outside FOLDER. What to set goes to standard output.
set -eu
[ $# = 1 ] || { echo "usage: sh install.sh FOLDER" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    --target "$folder" --upgrade "$here"/wheels/*.whl >&2
cp -R "$here"/peer/. "$folder"
mkdir -p "$folder/vulkan"
cp "$here/vulkan/libvulkan.so.1" "$folder/vulkan"
cp "$here"/weights/*.safetensors "$folder"
cat <<END
export PYTHONPATH='$folder'\${PYTHONPATH:+:\$PYTHONPATH}
export PATH='$folder/bin':\$PATH
export LD_LIBRARY_PATH='$folder/vulkan'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
# Then: python3 -m vs_vsr.bench.gpu --out results --weights $folder/basicvsr_reds_fp16.safetensors
END
