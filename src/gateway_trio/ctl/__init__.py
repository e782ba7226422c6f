"""`gateway-trio ctl`: what an operator asks of a gateway, on the client library.

app      the command line
run      one call: connect, ask, and what becomes of errors, signals and time
verbs    what is asked, and what is said of the answer
waiting  `--wait`: until the drain or the restart is over
screen   the only module that writes, for a person or as JSON; much text through an `outlet`
options  what `ctl` and `sessions` have in common on the command line

`gateway-trio sessions` is made of the same: `sessions_app` is its command line, `sessions` its verbs.
"""
