"""The local page: a queue of jobs on top of `vs-vsr upscale`, for a browser on this machine.

    browser -- guard -- app --+-- uploads   bytes to disk, from where they stopped
                              +-- jobs      what is known of each job: a folder, job.json in it
                              +-- runner    one after another, each a child: vs-vsr upscale --json

The server computes nothing and opens no media file: it imports neither torch nor VapourSynth, and
whatever a file does to FFmpeg happens in a child. All state is in the folder, so a server that was
killed goes on where it stopped.
"""
