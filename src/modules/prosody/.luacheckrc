std = "min" -- what Lua 5.1 to 5.4 have in common: Prosody runs on any of 5.2 to 5.4
globals = { "module" }
read_globals = { "prosody" }
max_line_length = 128
