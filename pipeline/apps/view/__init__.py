"""`lightpool view`: a local page to look at events or frames.

server  HTTP on this machine alone: who is answered, and what is refused
frames  a FITS frame and its restoration as tiles
events  the events of a camera file as JSON
app     what a file is, and the page for it
"""
