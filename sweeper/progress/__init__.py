"""A study under way: what happened, what it came to so far, and how that is shown.

events --state.py--> Snapshot --+-- lines.py    plain lines, for pipes and logs
|-- live.py     one live view of a terminal
'-- note.py     progress.json, for whoever asks meanwhile
'-- status.py, with the journal
"""
