-- Prosody runs on any of Lua 5.2 to 5.4: only what they have in common, and what its environment adds.
std = "min"
max_line_length = 140
files["src/modules/prosody"] = {
	read_globals = { "prosody" },
	globals = { "module" },
}
