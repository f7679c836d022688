"""Pictures of several files at the same moments, side by side: a still, or a page for a browser.

What a user calls is `vs-vsr compare`. Files are sought in, never indexed, so a few pictures of a
film come in seconds.
"""
