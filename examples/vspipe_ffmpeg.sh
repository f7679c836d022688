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
part=${out%.*}.part.${out##*.}
failed=$(mktemp)
trap 'rm -f "$failed" "$part"' EXIT

for argument; do
    set -- "$@" -a "$argument"
    shift
done

# setparams says what y4m cannot: that the pictures are BT.709. The options -colorspace and
# -color_range would convert them (ffmpeg 7.1 and later), from a matrix that it guesses.
{
    vspipe --progress -c y4m -a "source=$source" "$@" "$here/basicvsr.vpy" - || echo vspipe >"$failed"
} | "${FFMPEG:-ffmpeg}" -hide_banner -loglevel warning -y -i - -i "$source" \
    -map 0:v -map '1:a?' -map '1:s?' -c:a copy -c:s copy \
    -vf setparams=colorspace=bt709:range=tv -c:v libx264 -crf 16 -preset medium \
    "$part" || echo ffmpeg >>"$failed"
if [ -s "$failed" ]; then
    echo "$0: $(head -n 1 "$failed") failed, so $out is not written." >&2
    exit 1
fi
mv "$part" "$out"
