#!/bin/sh
# Upscale a file with BasicVSR and keep its sound and subtitles.
#
#   examples/vspipe_ffmpeg.sh in.mkv out.mkv [name=value …]     as in basicvsr.vpy
#
# $FFMPEG names the ffmpeg to use.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 in.mkv out.mkv [name=value …]" >&2
    exit 2
fi
source=$1 out=$2
shift 2
here=$(dirname "$0")
ffmpeg=${FFMPEG:-ffmpeg}

for argument; do
    set -- "$@" -a "$argument"
    shift
done

# A shell without pipefail would not notice that vspipe stopped early, so the file gets its name last.
status=$(mktemp)
trap 'rm -f "$status" "$out.part.mkv"' EXIT
{
    vspipe --progress -c y4m -a "source=$source" "$@" "$here/basicvsr.vpy" - || echo "$?" >"$status"
} | "$ffmpeg" -hide_banner -loglevel warning -y -i - -i "$source" \
    -map 0:v -map '1:a?' -map '1:s?' -c:a copy -c:s copy \
    -c:v libx264 -crf 16 -preset medium \
    -colorspace bt709 -color_range tv "$out.part.mkv"
if [ -s "$status" ]; then
    echo "$0: vspipe failed; $out is not written." >&2
    exit 1
fi
mv "$out.part.mkv" "$out"
