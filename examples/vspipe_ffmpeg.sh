#!/bin/sh
# Upscale a file with BasicVSR and keep its sound, subtitles, times, pixel aspect and colours.
#
#   examples/vspipe_ffmpeg.sh in.mkv out.mkv [name=value …]     as in upscale.vpy
#
# $FFMPEG names the ffmpeg to use, 5.1 or newer.
set -eu
if [ $# -lt 2 ]; then
    echo "usage: $0 in.mkv out.mkv [name=value …]" >&2
    exit 2
fi
source=$1 out=$2
shift 2
here=$(dirname "$0")
part=${out%.*}.part.${out##*.}
failed=$(mktemp) words=$(mktemp)
trap 'rm -f "$failed" "$words" "$part"' EXIT

stop() {
    echo "$0: $1 failed, so $out was not written. Its message is above." >&2
    exit 1
}

for argument; do
    set -- "$@" -a "$argument"
    shift
done
set -- -a "source=$source" -a "tell=$words" "$@" "$here/upscale.vpy" -

# First the script is run without computing a frame. That checks the arguments, and tells which
# container vspipe must write and what ffmpeg must be told, because the pipe does not carry it.
vspipe --info "$@" >/dev/null || stop vspipe
read -r container <"$words"
{
    vspipe --progress -c "$container" "$@" || echo vspipe >"$failed"
} | {
    set --
    while IFS= read -r word; do set -- "$@" "$word"; done <"$words"
    shift
    # Matroska names no frame rate: ffmpeg finds it from the first frames, however large they are.
    "${FFMPEG:-ffmpeg}" -hide_banner -loglevel error -y -probesize 2G -i - -i "$source" \
        -map 0:v -map '1:a?' -map '1:s?' -c:a copy -c:s copy \
        "$@" -c:v libx264 -crf 16 -preset medium "$part" || echo ffmpeg >>"$failed"
}
if [ -s "$failed" ]; then stop "$(head -n 1 "$failed")"; fi
mv "$part" "$out"
