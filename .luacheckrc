-- Prosody's modules: Lua 5.2 to 5.4, and what their environment adds.
std = "lua54"
max_line_length = 140
files["src/modules/prosody"] = {
	read_globals = { "prosody" },
	globals = { "module" },
}
