-- Tells a PushRelay component what every session of this virtual host is doing and which messages its accounts got,
-- so that the relay can alert the phones that nobody looks at.
--
-- The wire is urn:pushrelay:bridge:1 over the component's own XEP-0114 link: whole session states, messages, what the
-- account has read; numbered, kept until the relay says they are on its disk, and sent again when it asks.
-- It reads and reports. No stanza is changed or held up, and an error in here is logged while the stanza goes on.
--
-- Prosody 0.12 or later. Options and limits: README.md.

local datetime = require "util.datetime";
local filters = require "util.filters";
local jid = require "util.jid";
local new_cache = require "util.cache".new;
local new_sid = require "util.id".short; -- 72 random bits
local random_hex = require "util.uuid".get_nibbles; -- from the system's secure source
local sha1 = require "util.hashes".sha1;
local st = require "util.stanza";
local time = require "util.time";
local rostermanager = require "core.rostermanager";
local usermanager = require "core.usermanager";
local user_exists = usermanager.user_exists;
local user_is_enabled = usermanager.user_is_enabled; -- since Prosody 13
local utf8_valid = require "util.encodings".utf8.valid;
local is_loaded = require "core.modulemanager".is_loaded;
local xml_escape = st.xml_escape;
local xpcall = require "util.xpcall".xpcall;

local concat, find, floor, gsub, match, sub = table.concat, string.find, math.floor, string.gsub, string.match, string.sub;
local now = time.now;

local host = module.host;
local component = jid.prep(module:get_option_string("push_relay_component") or "");
if not component then
	error("push_relay_component must name the relay's component, e.g. push_relay_component = \"push." .. host .. "\"", 0);
end
local heartbeat = math.max(1, module:get_option_number("push_relay_heartbeat", 30)); -- seconds
local queue_size = math.max(1, module:get_option_number("push_relay_queue_size", 10000)); -- events
local queue_time = math.max(1, module:get_option_number("push_relay_queue_time", 600)); -- seconds
local ack_timeout = module:get_option_number("push_relay_ack_timeout", 5); -- seconds; 0: never ask

local xmlns_bridge = "urn:pushrelay:bridge:1";
local module_version = "1.1.0";
local body_max = 8192; -- bytes
local id_max = 1024; -- bytes: a longer id cannot identify anything and is left out
local stanza_max = 60000; -- bytes: the wire allows 64 KiB with its wrapping
local held_max = math.max(stanza_max, math.min(64 * 1024 * 1024, queue_size * body_max)); -- bytes: for long messages
local page_max = 100; -- children of a stanza, as the wire has it
local children_max = math.max(1, math.min(page_max, math.floor(queue_size / 100))); -- the queue drops whole stanzas
local gather_time = 0.05; -- seconds between two stanzas at least: events in between share one; after a pause none waits
local in_flight_max = 16 * 1024 * 1024; -- bytes sent and not acknowledged before the relay counts as stuck
local read_max = 10000; -- conversations remembered as read
local copy_window = 10; -- seconds in which the same message to another resource is a copy
local copies_max = 100; -- resources of an account that it is a copy to: strangers invent them
local limits = {
	repeat_time = 600, repeats = 20000; -- seconds in which a stanza counts as sent again, and how many are remembered
	written = 10000; -- messages of sessions to rooms that are remembered as long, to know their reflections
	calls = 10000; -- calls and invitations that are remembered
	invite_time = 60; -- seconds in which several invitations to a room count as one
	history_time = 60; -- seconds after entering a room at which its history is over if it sent no subject
	name = 255; -- bytes of a display name or a file's name
	name_escaped = 6 * 255 + 8; -- what one may take in an event
	names = 10000, name_time = 600; -- display names remembered, and for how many seconds
	lookups = 20; -- names looked up for a stanza of events; the rest is known the next time
	address = 4096; -- bytes of an address that is looked at
	addresses = 8; -- of a file
	ranges = 32; -- of fallback in one message
	languages = 4, bodies = 16; -- that are reported, and looked at in one message
	language = 35; -- bytes of a language tag
	text = 16384; -- bytes of a text in which addresses and nicknames are looked for
	place = 256; -- bytes of an address of a place
	places = 10; -- sessions of an account whose nicknames in a room are looked at
	last_places = 10000; -- of accounts that are in a room no more, or still
	depth = 32; -- of XHTML
	blocked = 100; -- addresses blocked at once that are reported
	blocklists = 256, blocklist_time = 60; -- block lists remembered, for inviters, and for how many seconds
	known = 100000, known_step = 10; -- accounts remembered to find out that they are gone, and looked at in a minute
};

local local_sessions = prosody.hosts[host].sessions;
local full_sessions, bare_sessions = prosody.full_sessions, prosody.bare_sessions;

-- The stream. A reload hands all of this on, so the relay sees no seam.
local epoch = random_hex(32);
local seq = 0; -- the last number given out
local held, held_first, held_last = {}, 1, 0; -- what the relay has not acknowledged: { seq, at, count of events, stanza }
local held_count, held_bytes = 0, 0; -- events in them, and what they take
local dropped, dropped_seq = 0, 0; -- what the bound cost above the relay's position, and the last number among it
local reported = setmetatable({}, { __mode = "k" }); -- stanzas of XEP-0198 queues that were sent again as unacked
local link = nil; -- the component's connection, from its snapshot until it is lost or stuck
local in_flight, sizes = 0, {}; -- bytes on that connection without an acknowledgement, and those of each number
local acked = 0; -- the last number acknowledged on that connection, or given out before it

-- The stanza that is being filled: its pieces after the first, which is for its start. They are strings that exist already:
-- what a message costs here is what it leaves to the garbage collector.
local batch, pieces, batch_bytes = { "" }, 1, 0;
local children, loose = 0, {}; -- how many events, and the places of those that are not to be kept
local flushing, flushed = false, 0; -- a timer will send it; when the last one was sent
local stopping = false; -- no timer will run any more
local to_name, to_learn = {}, {}; -- events in it that wait for a display name: { place, account, address, is_room }; those it left without
local expecting = {}; -- sessions that were inactive when a message came for them, to be asked for an answer

local ending = setmetatable({}, { __mode = "k" }); -- session → the events for what it leaves unacknowledged
local read, read_count = {}, 0; -- by account and other: conversations in which nothing has come since the account read them
local memories = { -- what was seen before; more below
	places = new_cache(limits.last_places); -- account and room → its last nickname there, and its occupant-id
};
local copies = new_cache(1000); -- hash of a message → when, and to which JIDs of the account it came

local function bare(address) return address and match(address, "^[^/]+"); end -- of an address that is prepared already
local function milliseconds(seconds) return floor((seconds or now()) * 1000); end

-- XML 1.0 has no way to write some characters: one of them ends a stream. No client can send them, but a module of the server
-- may have made a stanza or a name of something that was no XML.
local function allowed(text)
	return (gsub(gsub(text, "[%z\1-\8\11\12\14-\31]", " "), "\239\191[\190\191]", " ")); -- control characters, U+FFFE, U+FFFF
end

-- An anchored pattern is matched in one go, another from each place anew.
local function escape(text) return find(text, "^[^&<>'\"%c\239]*$") and text or xml_escape(allowed(text)); end

local end_gathering; -- sends the stanza and asks who was expected to answer; below

-- Numbers, queue and link ---------------------------------------------------------------------------------------------

-- Events are written once, as text: most are sent and forgotten, and a held one takes no more than its bytes.
local function element(name, attr, content)
	local text = { "<", name };
	for key, value in pairs(attr) do
		text[#text + 1] = " " .. key .. "='" .. escape(value) .. "'";
	end
	text[#text + 1] = content and content ~= "" and ">" .. content .. "</" .. name .. ">" or "/>";
	return concat(text);
end

local function start_of_events(attr)
	return ("<message from='%s' to='%s'><events xmlns='%s' epoch='%s' %s>"):format(host, component, xmlns_bridge, epoch, attr);
end
local end_of_events = "</events></message>";
local function events(attr, content) return start_of_events(attr) .. content .. end_of_events; end

-- Forgets the oldest, and returns it.
local function let_go()
	local oldest = held[held_first];
	held_count, held_bytes = held_count - oldest.count, held_bytes - #oldest.stanza;
	held[held_first], held_first = nil, held_first + 1;
	return oldest;
end

local function release(position)
	while held_first <= held_last and held[held_first].seq <= position do let_go(); end
	if position >= dropped_seq then dropped = 0; end
	while acked < position do
		acked = acked + 1;
		in_flight, sizes[acked] = in_flight - (sizes[acked] or 0), nil;
	end
end

local function enforce_bound()
	local oldest = time.monotonic() - queue_time;
	while held_first <= held_last and (held_count > queue_size or held_bytes > held_max or held[held_first].at < oldest) do
		if dropped == 0 then
			module:log("warn", "%s does not acknowledge: more than %d events, %d bytes or %d s are waiting, dropping the oldest",
				component, queue_size, held_max, queue_time);
		end
		local lost = let_go();
		dropped, dropped_seq = dropped + lost.count, lost.seq;
		read, read_count = {}, 0; -- what was said of them may be among it
	end
end

-- Prosody buffers without bound for a peer that does not read. When the relay is stuck it gets nothing more. Once it has
-- acknowledged what it got it is greeted with a number that does not follow the last: it asks for a snapshot, and gets
-- what is held.
local function linked()
	if link and link.destroyed then link = nil; end
	if link and in_flight >= in_flight_max then
		module:log("warn", "%s left %d bytes unacknowledged: nothing more until its next snapshot", component, in_flight);
		link, seq = nil, seq + 1;
	end
	return link ~= nil;
end

local function link_up(connection)
	link, in_flight, sizes, acked = connection, 0, {}, seq;
end

-- Numbers and sends what has been gathered.
local function flush()
	if children == 0 then return; end
	local last, count, bare_state = pieces, children - #loose, loose;
	pieces, children, batch_bytes, loose = 1, 0, 0, {};
	if #to_name > 0 then to_name, to_learn = {}, to_name; end
	flushed = time.monotonic();
	if not linked() and count == 0 then return; end
	seq = seq + 1;
	batch[1] = start_of_events("seq='" .. seq .. "'");
	batch[last + 1] = end_of_events;
	local stanza = concat(batch, "", 1, last + 1);
	if link then
		in_flight, sizes[seq] = in_flight + #stanza, #stanza;
		link.send(stanza);
	end
	if count == 0 then return; end
	if #bare_state > 0 then
		for _, place in ipairs(bare_state) do batch[place] = ""; end
		stanza = concat(batch, "", 1, last + 1);
	end
	held_last, held_count, held_bytes = held_last + 1, held_count + count, held_bytes + #stanza;
	held[held_last] = { seq = seq, at = flushed, count = count, stanza = stanza };
	enforce_bound();
end

-- One more event is in the stanza. Events that come close together share one, because a stanza and its acknowledgement
-- cost more than an event does.
local function added(last, bytes)
	pieces, children, batch_bytes = last, children + 1, batch_bytes + bytes;
	if stopping or children == children_max then
		flush();
	elseif not flushing then
		flushing = true;
		module:add_timer(math.max(0, flushed + gather_time - time.monotonic()), end_gathering);
	end
end

-- What must not be lost is kept, link or no link. The rest is state: a snapshot repeats it, so without a link it needs
-- no number.
local function give(event, keep)
	if not keep and not linked() then return; end
	if batch_bytes + #event > stanza_max then flush(); end
	batch[pieces + 1] = event;
	if not keep then loose[#loose + 1] = pieces + 1; end
	added(pieces + 1, #event);
end

local function log_error(err) module:log("error", "%s", debug.traceback(err, 2)); end

local function is_relay(origin) return origin.type == "component" and origin.host == component; end

-- Sessions ------------------------------------------------------------------------------------------------------------

-- What we know about a session lives and dies with it: { sid, csi, overdue, watch, rooms, told, since }. A room is what it
-- said of the session: { nick, occupant, role, affiliation, history_until }.
local function notes(session)
	local own = session.push_relay;
	if not own then
		local inactive = session.state == "inactive" or session.state == "flushing";
		own = { sid = new_sid(), csi = inactive and "inactive" or "active" };
		session.push_relay = own;
	end
	if not own.rooms then -- or left by a version that did not know them
		own.rooms = {};
		for to in pairs(session.directed or {}) do -- rooms it is in
			if jid.resource(to) then own.rooms[bare(to)] = { nick = jid.resource(to) }; end
		end
	end
	return own;
end

local function state_of(session)
	local own = notes(session);
	return (session.hibernating or own.overdue) and "hibernating" or own.csi;
end

local shows = { away = true, chat = true, dnd = true, xa = true };

-- The session as it is, and whether that was not told yet.
local function session_event(session, closed)
	local own, presence = notes(session), not closed and session.presence;
	local show = presence and presence:get_child_text("show");
	local event = element("session", {
		jid = session.full_jid, sid = own.sid;
		state = closed and "closed" or state_of(session);
		available = presence and "true" or "false";
		priority = ("%d"):format(presence and session.priority or 0);
		show = shows[show] and show or nil;
	});
	local changed = own.told ~= event;
	if changed then own.told, own.since = event, milliseconds(); end
	return event:sub(1, -3) .. " ts='" .. own.since .. "'/>", changed;
end

local function report(session, closed)
	if not session.full_jid or session.destroyed and not closed then return; end
	local event, changed = session_event(session, closed);
	if changed then give(event, false); end
end

local function each_session(f)
	for _, user in pairs(local_sessions) do
		for _, session in pairs(user.sessions) do f(session); end
	end
end

-- Messages: what stands in them ---------------------------------------------------------------------------------------

-- What a child of a message means here, by namespace without its version, and name.
local meanings = {
	[""] = { body = "body", subject = "subject" };
	["urn:xmpp:carbons"] = { sent = "not a message", received = "not a message" }; -- XEP-0280
	["urn:xmpp:mam"] = { result = "not a message" }; -- XEP-0313
	["urn:xmpp:jingle-message"] = { -- XEP-0353
		propose = "call", retract = "call", finish = "call", ringing = "call", accept = "call", proceed = "call", reject = "call";
	};
	["urn:xmpp:call-invites"] = { -- XEP-0482
		invite = "call invite", accept = "call invite", reject = "call invite", retract = "call invite", left = "call invite";
	};
	["urn:xmpp:call-message"] = { -- its older name
		propose = "old invite", accept = "old invite", reject = "old invite", retract = "old invite", finish = "old invite";
	};
	["tigase:meet"] = { propose = "meeting" };
	["urn:xmpp:message-retract"] = { retract = "retract" }; -- XEP-0424
	["urn:xmpp:fasten"] = { ["apply-to"] = "apply-to" }; -- XEP-0422, in which the first XEP-0424 and XEP-0425 came
	["urn:xmpp:reactions"] = { reactions = "reactions" }; -- XEP-0444
	["urn:xmpp:message-correct"] = { replace = "replace" }; -- XEP-0308
	["urn:xmpp:message-attaching"] = { ["attach-to"] = "attach-to" }; -- XEP-0367
	["urn:xmpp:reply"] = { reply = "reply" }; -- XEP-0461
	["urn:xmpp:fallback"] = { fallback = "fallback" }; -- XEP-0428
	["urn:xmpp:feature-fallback"] = { fallback = "fallback" }; -- its older name
	["urn:xmpp:spoiler"] = { spoiler = "spoiler" }; -- XEP-0382
	["jabber:x:oob"] = { x = "oob" }; -- XEP-0066
	["urn:xmpp:sfs"] = { ["file-sharing"] = "sharing" }; -- XEP-0447
	["urn:xmpp:file:metadata"] = { file = "file" }; -- XEP-0446
	["urn:xmpp:reference"] = { reference = "reference" }; -- XEP-0372, and XEP-0385 in it
	["urn:xmpp:stickers"] = { sticker = "sticker" }; -- XEP-0449
	["http://jabber.org/protocol/xhtml-im"] = { html = "html" }; -- XEP-0071
	["urn:xmpp:mentions"] = { mention = "mention" }; -- XEP-0513
	["urn:fluux:mentions"] = { ["mention-all"] = "everybody" };
	["urn:xmpp:eme"] = { encryption = "encryption" }; -- XEP-0380
	["eu.siacs.conversations.axolotl"] = { encrypted = "axolotl" }; -- XEP-0384 before 0.4
	["urn:xmpp:omemo"] = { encrypted = "omemo" }; -- with XEP-0420 inside
	["urn:xmpp:openpgp"] = { openpgp = "openpgp" }; -- XEP-0373
	["jabber:x:encrypted"] = { x = "pgp" }; -- XEP-0027
	["urn:xmpp:hints"] = { store = "store", ["no-store"] = "no-store", ["no-permanent-store"] = "no-store" }; -- XEP-0334
	["urn:xmpp:chat-markers"] = { displayed = "displayed" }; -- XEP-0333
	["urn:xmpp:mds:displayed"] = { displayed = "displayed" }; -- XEP-0490, in a message too
	["jabber:x:conference"] = { x = "conference" }; -- XEP-0249
	["http://jabber.org/protocol/muc#user"] = { x = "muc" };
	["urn:xmpp:mix:misc"] = { invitation = "mix invitation" }; -- XEP-0407
	["urn:xmpp:mix:core"] = { mix = "mix" }; -- XEP-0369
	["http://jabber.org/protocol/pubsub#event"] = { event = "event" };
	["urn:xmpp:attention"] = { attention = "attention" }; -- XEP-0224
	["urn:xmpp:captcha"] = { captcha = "captcha" }; -- XEP-0158
	["jabber:x:data"] = { x = "form" };
	["urn:xmpp:delay"] = { delay = "delay" }; -- XEP-0203
	["jabber:x:delay"] = { x = "delay" }; -- XEP-0091
	["urn:xmpp:sid"] = { ["origin-id"] = "origin-id", ["stanza-id"] = "stanza-id" }; -- XEP-0359
	["urn:xmpp:occupant-id"] = { ["occupant-id"] = "occupant-id" }; -- XEP-0421
};
meanings["jabber:client"] = meanings[""]; -- where it stands inside another stanza
local by_namespace, namespaces = {}, 0; -- as they come, with their versions: bounded, because strangers invent them
local namespaces_max = 1000;

local function meaning_of(tag)
	local xmlns = tag.attr.xmlns or "";
	local names = by_namespace[xmlns];
	if names == nil then
		names = meanings[gsub(xmlns, ":%d+$", "")] or false;
		if namespaces < namespaces_max then by_namespace[xmlns], namespaces = names, namespaces + 1; end
	end
	return names and names[tag.name];
end

-- What the message that is looked at has: the first child of each meaning, and of which there are more. One for all: a
-- message is read before the next comes.
local found, more = {}, {};
local usual = { body = true, ["origin-id"] = true, ["stanza-id"] = true, store = true };

-- Says whether there is anything beside what every text has.
local function look_at(stanza)
	for meaning in pairs(found) do found[meaning] = nil; end
	for meaning in pairs(more) do more[meaning] = nil; end
	local tags, special = stanza.tags, false;
	for i = 1, #tags do
		local meaning = meaning_of(tags[i]);
		if meaning then
			if found[meaning] then more[meaning] = true; else found[meaning] = tags[i]; end
			if not usual[meaning] then special = true; end
		end
	end
	return special;
end

-- All children of that meaning.
local function all(stanza, meaning)
	if not more[meaning] then return ipairs({ found[meaning] }); end
	local list = {};
	for _, tag in ipairs(stanza.tags) do
		if meaning_of(tag) == meaning then list[#list + 1] = tag; end
	end
	return ipairs(list);
end

-- Messages: text ------------------------------------------------------------------------------------------------------

local cut, length, trim, is_blank, clean, clean_name, ranges_of, in_languages, words_of;
do
	function cut(text, bytes)
		if #text <= bytes then return text; end
		while bytes > 0 and text:byte(bytes + 1) >= 0x80 and text:byte(bytes + 1) < 0xC0 do bytes = bytes - 1; end
		return sub(text, 1, bytes);
	end

	function length(text) return #gsub(text, "[\128-\191]+", ""); end -- in characters
	local function above_ffff(text) return #gsub(text, "[^\240-\244]+", ""); end -- of them two units in UTF-16 each
	local function trim_end(text) return match(text, "^.*%S") or ""; end
	function trim(text) return trim_end(gsub(text, "^%s+", "")); end

	-- Nothing but spaces, control characters and what has no width.
	function is_blank(text)
		if find(text, "[%w%p]") then return false; end
		text = gsub(text, "[%s%c]+", "");
		text = gsub(text, "\194[\128-\160\173]", ""); -- C1, no-break space, soft hyphen
		text = gsub(text, "\226\128[\128-\143\168-\175]", ""); -- U+2000-200F, U+2028-202F
		text = gsub(text, "\226\129[\159-\175]", ""); -- U+205F-206F
		text = gsub(text, "\227\128\128", ""); -- ideographic space
		text = gsub(text, "\227\133\164", ""); -- Hangul filler
		return gsub(text, "\239\187\191", "") == "";
	end

	-- A text without what breaks a line of an alert, and without blanks at its end.
	function clean(text)
		if find(text, "\194", 1, true) then text = gsub(text, "\194[\128-\159]", " "); end -- C1
		if find(text, "\226\128", 1, true) then text = gsub(text, "\226\128[\168\169]", " "); end -- line and paragraph separator
		return find(text, "^%s", #text) and trim_end(text) or text;
	end

	-- A name for people to read, or nil.
	function clean_name(name)
		if type(name) ~= "string" then return nil; end
		name = gsub(gsub(allowed(cut(name, 1024)), "%c", " "), "\194[\128-\159]", " ");
		name = gsub(gsub(name, "\226\128[\139-\143\168-\174]", ""), "\226\129[\160-\169]", ""); -- zero width, direction
		name = gsub(name, "\239\187\191", "");
		name = trim(name);
		if is_blank(name) then return nil; end
		return trim_end(cut(name, limits.name));
	end

	-- Fallback (XEP-0428) that is left out because what it stands for is understood here, or changes nothing in an alert.
	local left_out = {
		["urn:xmpp:reply"] = true, ["urn:xmpp:reactions"] = true, ["urn:xmpp:message-retract"] = true;
		["urn:xmpp:message-correct"] = true, ["urn:xmpp:sfs"] = true, ["jabber:x:oob"] = true;
	};

	-- A language as it is compared: "" for none and for that of the stanza.
	local function language_key(language, stanza)
		local key, of_stanza = (language or ""):lower(), (stanza.attr["xml:lang"] or ""):lower();
		return key ~= of_stanza and key or "";
	end

	-- The ranges that a message marks as such fallback in its bodies or subjects, by characters: { from, to, of a reply, language,
	-- whether it names that language }; and whether one of them is about a file's address. `true` for all of them.
	function ranges_of(stanza, name)
		local ranges, address = {}, false;
		for _, fallback in all(stanza, "fallback") do
			local about = fallback.attr["for"] and gsub(fallback.attr["for"], ":%d+$", "");
			if not about or left_out[about] then
				if about == "jabber:x:oob" then address = true; end
				if #fallback.tags == 0 then return true, address; end
				for _, part in ipairs(fallback.tags) do
					local from, to = part.attr.start, part.attr["end"];
					local language = part.attr["xml:lang"] or fallback.attr["xml:lang"];
					if part.name == name and #ranges < limits.ranges then
						if not from and not to and not language then return true, address; end
						from = not from and not to and 0 or tonumber(match(from or "", "^%d+$"));
						to = not part.attr.start and not to and math.huge or tonumber(match(to or "", "^%d+$"));
						if from and to and from < to then
							ranges[#ranges + 1] = { from, to, about == "urn:xmpp:reply", language_key(language, stanza), language ~= nil };
						end
					end
				end
			end
		end
		return ranges, address;
	end

	-- The places of the bytes before which so many characters stand, in order; `wide`: counted in UTF-16 units.
	local function places_of(text, counts, wide)
		local places, last = {}, 0;
		for _, count in ipairs(counts) do last = math.max(last, count); end
		local wanted, seen = {}, 0;
		for _, count in ipairs(counts) do wanted[count] = true; end
		for place, first in string.gmatch(text, "()([^\128-\191])") do
			if wanted[seen] then places[seen] = place; end
			if seen > last then break; end
			local two = wide and first >= "\240";
			if two and wanted[seen + 1] then places[seen + 1] = place; end
			seen = seen + (two and 2 or 1);
		end
		for _, count in ipairs(counts) do places[count] = places[count] or #text + 1; end
		return places;
	end

	-- Where the quoted lines at the start of a text end, with the empty lines after them.
	local function end_of_quotation(text)
		local place = 1;
		while text:byte(place) == 62 do -- >
			local line_end = find(text, "\n", place, true);
			if not line_end then return #text + 1; end
			place = line_end + 1;
		end
		while place > 1 and text:byte(place) == 10 do place = place + 1; end
		return place;
	end

	-- Some clients count UTF-16 units: their ranges end behind the quotation by as many as it has characters of two units.
	local function without_surplus(text, to)
		local quotation = end_of_quotation(text);
		if quotation > 1 and to > quotation
			and length(sub(text, quotation, to - 1)) <= above_ffff(sub(text, 1, quotation - 1)) then
			return quotation;
		end
		return to;
	end

	-- The ranges of a text in that language. One that names no language is of the text that names none, if there is one.
	local function of_language(all_ranges, key, has_default)
		local ranges = {};
		for _, range in ipairs(all_ranges) do
			if range[4] == key or not range[5] and not has_default then ranges[#ranges + 1] = range; end
		end
		return ranges;
	end

	-- A text without those ranges.
	local function without_ranges(text, ranges)
		local total, narrow, wide, spans = length(text), {}, {}, {};
		local surplus = above_ffff(text);
		for _, range in ipairs(ranges) do
			local counts = range[2] > total and range[2] <= total + surplus and wide or narrow;
			counts[#counts + 1], counts[#counts + 2] = math.min(range[1], total + surplus), math.min(range[2], total + surplus);
		end
		local narrow_places, wide_places = places_of(text, narrow), places_of(text, wide, true);
		for _, range in ipairs(ranges) do
			local places = range[2] > total and range[2] <= total + surplus and wide_places or narrow_places;
			local from, to = places[math.min(range[1], total + surplus)], places[math.min(range[2], total + surplus)];
			if range[3] and from == 1 then to = without_surplus(text, to); end
			if from < to then spans[#spans + 1] = { from, to }; end
		end
		if #spans == 0 then return text; end
		table.sort(spans, function (one, other) return one[1] < other[1]; end);
		local rest, place = {}, 1;
		for _, span in ipairs(spans) do
			if span[1] > place then rest[#rest + 1] = sub(text, place, span[1] - 1); end
			place = math.max(place, span[2]);
		end
		rest[#rest + 1] = sub(text, place);
		return trim(concat(rest));
	end

	-- The texts of those elements, one a language, as { language, text }; the one for all readers comes first: that without a
	-- language or in that of the stanza, else the first.
	function in_languages(stanza, meaning, ranges)
		local texts, languages, default, looked, has_default = {}, {}, nil, 0, false;
		if ranges == true then return texts; end
		if ranges then
			for _, tag in all(stanza, meaning) do has_default = has_default or language_key(tag.attr["xml:lang"], stanza) == ""; end
		end
		for _, tag in all(stanza, meaning) do
			local language = tag.attr["xml:lang"];
			local key = language or stanza.attr["xml:lang"] or "";
			looked = looked + 1;
			if not languages[key] and looked <= limits.bodies then
				languages[key] = true;
				local text = tag:get_text();
				if text and ranges then
					text = without_ranges(text, of_language(ranges, language_key(language, stanza), has_default));
				end
				text = text and clean(text);
				if text and not is_blank(text) then
					texts[#texts + 1] = { language, text };
					if not default and (not language or language == stanza.attr["xml:lang"]) then default = #texts; end
				end
			end
		end
		if default and default > 1 then table.insert(texts, 1, table.remove(texts, default)); end
		for i = #texts, limits.languages + 1, -1 do texts[i] = nil; end
		return texts;
	end

	-- The words of XEP-0071, which should have a body beside it, and whether there is a picture; never deeper or longer than
	-- anything that is shown.
	function words_of(tag, words, depth)
		local picture = tag.name == "img";
		for _, child in ipairs(tag) do
			if type(child) == "string" then
				words.bytes = words.bytes + #child;
				words[#words + 1] = child;
			elseif depth < limits.depth then
				picture = words_of(child, words, depth + 1) or picture;
			end
			if words.bytes > body_max then break; end
		end
		return picture;
	end
end

-- Messages: files -----------------------------------------------------------------------------------------------------

local from_hex, without_keys, trimmed_child, shared_in;
do
	local kinds_by_extension = {};
	for kind, list in pairs({
		image = "jpg jpeg png webp heic heif avif bmp svg tif tiff jxl", gif = "gif";
		video = "mp4 m4v mov webm mkv avi 3gp mpg mpeg", audio = "mp3 m4a ogg oga opus aac flac wav amr";
	}) do
		for extension in string.gmatch(list, "%S+") do kinds_by_extension[extension] = kind; end
	end

	function from_hex(hex) return string.char(tonumber(hex, 16)); end

	-- The last part of an address's path, as a name.
	local function name_in(address)
		if #address > limits.address then return nil; end
		local path = match(address, "^[^?#]*");
		local name = match(path, "^%a[%w+.-]*://.*/(.*)$");
		if not name then return nil; end
		local decoded = gsub(name, "%%(%x%x)", from_hex);
		return utf8_valid(decoded) and decoded or name;
	end

	-- The kind of a file, and its name as it may be shown.
	local function kind_of_file(media_type, name)
		name = clean_name(name and gsub(name, "[/\\]", " "));
		if name then
			local open = match(name, "^(.+)%.%a%a%a$");
			local extension = open and sub(name, -3):lower();
			if extension == "pgp" or extension == "gpg" or extension == "enc" then name = open; end
		end
		local kind = media_type and (media_type:lower() == "image/gif" and "gif" or match(media_type:lower(), "^%s*(%a+)/"));
		if kind ~= "image" and kind ~= "gif" and kind ~= "video" and kind ~= "audio" then
			local extension = not media_type and name and match(name, "^.*%.(%w+)$");
			kind = extension and kinds_by_extension[extension:lower()] or "file";
		end
		if kind == "audio" and name and (find(name, "^RECORDING_") or find(name, "^voice%-message%-")) then kind = "voice"; end
		return kind, name;
	end

	-- A text without the addresses of files that hold their keys (XEP-0454), and the first of them.
	function without_keys(text)
		if not find(text, "://", 1, true) or not (find(text, "#", 1, true) or find(text, "aesgcm:", 1, true)) then return text; end
		local first;
		local rest = gsub(text, "%S+", function (word)
			local place = find(word, "aesgcm://", 1, true);
			if not place and find(word, "://", 1, true) then
				local key = match(word, "#(%x+)$");
				if key and (#key == 88 or #key == 96) then place = 1; end
			end
			if place then
				first = first or sub(word, place);
				return sub(word, 1, place - 1);
			end
			if first and find(word, "^data:") then return ""; end -- its preview
		end);
		return first and trim(gsub(rest, "  +", " ")) or text, first;
	end

	-- A text without an address that stands in it.
	local function without(text, address)
		if address == "" or #address > limits.address then return text; end
		local from, to = find(text, address, 1, true);
		if not from then return text; end
		return trim(sub(text, 1, from - 1) .. sub(text, to + 1));
	end

	function trimmed_child(tag, name, xmlns)
		local text = tag and tag:get_child_text(name, xmlns);
		text = text and trim(text);
		return text ~= "" and text or nil;
	end

	local function shared_media(stanza) -- XEP-0385
		for _, reference in all(stanza, "reference") do
			local media = reference.attr.type == "data" and reference:get_child("media-sharing", "urn:xmpp:sims:1");
			for _, file in ipairs(media and media.tags or {}) do
				-- without a type it describes a page and not a file
				if file.name == "file" and trimmed_child(file, "media-type") then return file, media; end
			end
		end
	end

	-- What a message shares, if anything: its kind, its name, and the text without its addresses.
	function shared_in(stanza, text, address_left_out)
		local place = "^geo:[+-]?[%d.]+,[+-]?[%d.]+[%w,;=.%%+_-]*$"; -- RFC 5870
		local sharing, file, media = found.sharing, found.file, nil;
		local address = trimmed_child(found.oob, "url");
		local whole = trim(text);
		if #whole <= limits.place and find(whole, place)
			or address and #address <= limits.place and find(address, place) and (whole == address or is_blank(text)) then
			return "location", nil, "";
		end
		local rest, keyed = without_keys(text);
		if sharing then
			file = sharing:get_child("file", "urn:xmpp:file:metadata:0") or sharing;
		elseif not file and found.reference then
			file, media = shared_media(stanza);
		end
		if not file and not keyed and not found.sticker then
			if not address then return nil, nil, text; end
			if whole ~= address and not is_blank(text) and not address_left_out then return nil, nil, text; end
		end

		local addresses = { address };
		local sources = sharing and sharing:get_child("sources") or media and media:get_child("sources");
		for _, source in ipairs(sources and sources.tags or {}) do
			if #addresses < limits.addresses then addresses[#addresses + 1] = source.attr.target or source.attr.uri; end
		end
		for _, each in ipairs(addresses) do rest = without(rest, each); end
		if find(trim(rest), "^%a[%w+.-]*://%S+$") then
			addresses[#addresses + 1] = trim(rest);
			rest = "";
		end
		if found.sticker then return "sticker", nil, rest; end
		local kind, name = kind_of_file(trimmed_child(file, "media-type"), trimmed_child(file, "name") or name_in(keyed or addresses[1] or ""));
		if is_blank(rest) then rest = clean(trimmed_child(file, "desc") or trimmed_child(found.oob, "desc") or ""); end
		return kind, name, without_keys(rest);
	end
end

-- Messages: mentions --------------------------------------------------------------------------------------------------

local places_in, is_own, is_mention;
do
	-- Small letters for the capitals of two bytes: Latin, Greek, Cyrillic, Armenian.
	local small_letters = {};
	do
		local function two_bytes(code) return string.char(0xC0 + floor(code / 64), 0x80 + code % 64); end
		local function shifted(first, last, by)
			for code = first, last do small_letters[two_bytes(code)] = two_bytes(code + by); end
		end
		local function in_pairs(first, last)
			for code = first, last, 2 do small_letters[two_bytes(code)] = two_bytes(code + 1); end
		end
		shifted(0xC0, 0xD6, 32); shifted(0xD8, 0xDE, 32);
		in_pairs(0x100, 0x12E); in_pairs(0x132, 0x136); in_pairs(0x139, 0x147); in_pairs(0x14A, 0x176); in_pairs(0x179, 0x17D);
		in_pairs(0x1CD, 0x1DB); in_pairs(0x1DE, 0x1EE); in_pairs(0x1F8, 0x21E); in_pairs(0x222, 0x232);
		shifted(0x386, 0x386, 38); shifted(0x388, 0x38A, 37); shifted(0x38C, 0x38C, 64); shifted(0x38E, 0x38F, 63);
		shifted(0x391, 0x3A1, 32); shifted(0x3A3, 0x3AB, 32); shifted(0x3C2, 0x3C2, 1); -- the last: sigma at the end of a word
		shifted(0x400, 0x40F, 80); shifted(0x410, 0x42F, 32); in_pairs(0x460, 0x480); in_pairs(0x48A, 0x4BE);
		in_pairs(0x4C1, 0x4CD); in_pairs(0x4D0, 0x52E); shifted(0x531, 0x556, 48);
	end

	local function lower(text)
		text = text:lower();
		return find(text, "[\195-\214]") and gsub(text, "[\195-\214][\128-\191]", small_letters) or text;
	end

	-- Characters above ASCII that are part of a word; not those of scripts that are written without spaces between words, or
	-- that join endings to a name: Han, kana, Hangul, Thai, Lao, Khmer, Myanmar.
	local no_letters = { -- in between
		{ 0xD7, 0xD7 }, { 0xF7, 0xF7 }, { 0x2C2, 0x2DF }, { 0x37E, 0x37E }, { 0x387, 0x387 }, { 0x55A, 0x55F }, { 0x589, 0x58F };
		{ 0x5BE, 0x5BE }, { 0x5C0, 0x5C0 }, { 0x5C3, 0x5C3 }, { 0x5F3, 0x60F }, { 0x61B, 0x61F }, { 0x66A, 0x66D }, { 0x6D4, 0x6D4 };
		{ 0x700, 0x70F }, { 0x964, 0x965 }, { 0xE00, 0xEFF }, { 0x1000, 0x109F }, { 0x1100, 0x11FF }, { 0x1360, 0x1368 };
		{ 0x1680, 0x1680 }, { 0x1780, 0x180F }, { 0x19E0, 0x19FF }, { 0x2000, 0x2BFF }, { 0x2E00, 0xA63F }, { 0xA9E0, 0xA9FF };
		{ 0xAA60, 0xAA7F }, { 0xAC00, 0xFAFF }, { 0xFE00, 0xFE6F }, { 0xFEFD, 0xFFFF };
	};
	local function is_letter(character)
		local first, second, third, fourth = character:byte(1, 4);
		if not first or fourth then return false; end
		if first < 0x80 then return find(character, "^%w") ~= nil; end
		local code = third and (first - 0xE0) * 4096 + (second - 0x80) * 64 + third - 0x80 or (first - 0xC0) * 64 + (second or 0x80) - 0x80;
		if code < 0xC0 then return code == 0xAA or code == 0xB5 or code == 0xBA; end
		for _, range in ipairs(no_letters) do
			if code <= range[2] then return code < range[1]; end
		end
		return false;
	end

	local function character_before(text, place)
		local first = place - 1;
		while first > 1 and first > place - 4 and find(text, "^[\128-\191]", first) do first = first - 1; end
		return sub(text, first, place - 1);
	end

	local function character_at(text, place) return match(text, "^[^\128-\191][\128-\191]*", place) or ""; end

	-- Whether the text has that nickname as a word; one of a single character only where it is spoken to.
	local function has_word(text, word)
		local short = length(word) == 1;
		local opens, closes = is_letter(character_at(word, 1)), is_letter(character_before(word, #word + 1));
		local from, to = find(text, word, 1, true);
		while from do
			local before, after = character_before(text, from), character_at(text, to + 1);
			if not (opens and is_letter(before)) and not (closes and is_letter(after))
				and (not short or before == "@" or after == ":" or after == ",") then
				return true;
			end
			from, to = find(text, word, to + 1, true);
		end
		return false;
	end

	-- Where the account is in a room: what its sessions are called there, and what the room said of them. For an account without a
	-- session there what is known of the last one, if `absent` names it: a room may write to it all the same (MUC/Sub, offline delivery).
	local places, place_count = {}, 0; -- one for all

	function places_in(user, room, absent)
		for i = 1, place_count do places[i] = nil; end
		place_count = 0;
		for _, session in pairs(user and user.sessions or {}) do
			local place = notes(session).rooms[room];
			if place and place_count < limits.places then
				place_count = place_count + 1;
				places[place_count] = place;
			end
		end
		if place_count > 0 then return true; end
		local last = absent and memories.places:get(absent .. "\0" .. room);
		if last then
			local nick, occupant = match(last, "^(%Z*)%z(.*)$");
			place_count, places[1] = 1, { nick = nick, occupant = occupant ~= "" and occupant or nil };
		end
		return false;
	end

	-- Whether one of them has that value there.
	function is_own(key, value)
		for i = 1, place_count do
			if value and places[i][key] == value then return true; end
		end
		return false;
	end

	local groups = { -- of XEP-0513, and what of an occupant says that it belongs there; true: everybody does
		channel = true, space = true, server = true;
		moderators = "role", participants = "role", visitors = "role";
		owner = "affiliation", admin = "affiliation", member = "affiliation", none = "affiliation";
	};

	local function names_account(address, account, room)
		address = address and #address <= limits.address and jid.prep(address);
		if not address then return false; end
		return bare(address) == account or bare(address) == room and is_own("nick", jid.resource(address));
	end

	-- What XEP-0513 says: true, false (not to notify), or nil.
	local function mentioned_explicitly(stanza, account, room)
		local quiet;
		for _, mention in all(stanza, "mention") do
			local attr = mention.attr;
			local group = attr.mentions and match(attr.mentions, "^urn:xmpp:mentions:%d+#(%a+)$");
			local belongs = groups[group];
			if belongs == true or belongs and is_own(belongs, gsub(group, "s$", ""))
				or is_own("occupant", attr.occupantid) or names_account(attr.jid, account, room) then
				if not mention:get_child("noping") then return true; end
				quiet = false;
			end
		end
		return quiet;
	end

	function is_mention(stanza, account, room, text)
		local explicitly = found.mention and mentioned_explicitly(stanza, account, room);
		if explicitly ~= nil and found.mention then return explicitly; end
		if found.everybody or found.reply and names_account(found.reply.attr.to, account, room) then return true; end
		for _, reference in all(stanza, "reference") do -- XEP-0372
			local uri = reference.attr.type == "mention" and reference.attr.uri;
			if uri and #uri <= limits.address then
				uri = gsub(gsub(uri, "^xmpp:", ""), "%%(%x%x)", from_hex);
				if uri == room or names_account(uri, account, room) then return true; end
			end
		end
		if text == "" then return false; end
		text = cut(text, limits.text);
		if find(text, ">", 1, true) then text = gsub("\n" .. text, "\n>[^\n]*", "\n"); end -- not what it quotes
		text = lower(text);
		if place_count == 0 then return has_word(text, lower(jid.node(account))); end
		for i = 1, place_count do
			if has_word(text, lower(places[i].nick)) then return true; end
		end
		return false;
	end
end

-- Messages: what they are ---------------------------------------------------------------------------------------------

local read_encrypted, media_of, call_in, classify;
do
	local otr_parts = { -- what begins a message of XEP-0364 that is, or asks for, a conversation; the rest exchanges keys
		"^%?OTR:AAMD", "^%?OTR:AAID", "^%?OTR%?", "^%?OTRv", "^%?OTR|%x+|%x+,0*1,", "^%?OTR,0*1,";
	};

	-- Whether this is encrypted, and then whether it is something to read: true, false, or nil for a message in clear.
	function read_encrypted(body)
		local readable = body ~= "" and not is_blank(body);
		local stored, not_stored, eme = found.store, found["no-store"], found.encryption;
		local axolotl, omemo = found.axolotl, found.omemo;
		if axolotl or omemo then
			if not (axolotl and axolotl:get_child("payload") or omemo and omemo:get_child("payload")) then return false; end -- keys only
			if readable then return true; end
			-- without an outer body it is typing, a marker or a reaction; only Pidgin writes so, and names the method
			return (not omemo and eme and eme.attr.name and stored and not not_stored) and true or false;
		end
		if found.openpgp then return readable or (eme and not stored and not not_stored) and true or false; end
		if find(body, "^%?OTR") then
			for _, part in ipairs(otr_parts) do
				if find(body, part) then return true; end
			end
			return false;
		end
		if found.pgp then return readable or not not_stored; end
		if eme then return readable; end
		return nil;
	end

	-- What a call offers: "audio", "video", both in this order, or nil; and false where it is no call.
	function media_of(call)
		local has, described = {}, false;
		for _, child in ipairs(call.tags) do
			if child.name == "description" then
				described = true;
				if match(child.attr.xmlns or "", "^urn:xmpp:jingle:apps:rtp:%d+$") then
					has.rtp, has[child.attr.media or ""] = true, true;
				end
			elseif child.name == "media" then
				has[child:get_text() or ""] = true;
			end
		end
		if described and not has.rtp then return false; end
		return has.audio and (has.video and "audio video" or "audio") or has.video and "video" or nil;
	end

	local function media_of_invite(invite)
		local video, audio = invite.attr.video, invite.attr.audio;
		video, audio = video == "true" or video == "1", audio ~= "false" and audio ~= "0";
		return audio and (video and "audio video" or "audio") or video and "video" or nil;
	end

	-- The element of a call in a message, with its id; XEP-0353 counts before the others.
	function call_in(stanza, group)
		local call = not group and found.call or found["call invite"] or found["old invite"] or not group and found.meeting;
		if not call then return nil; end
		local id = call.attr.id;
		if not id and call ~= found.call and call ~= found.meeting then id = stanza.attr.id; end
		return call, id and id ~= "" and #id <= id_max and id or nil;
	end

	-- What the peer does to a call.
	local function read_call(message, call, id)
		if not id then return nil; end
		local name = call.name;
		if name == "propose" or name == "invite" then
			local media;
			if call == found.call or call == found.meeting then media = media_of(call); else media = media_of_invite(call); end
			if media == false then return nil; end
			message.class, message.call, message.media = "call", id, media;
		elseif name == "retract" then -- or both called each other, and the account's own call goes on
			message.class, message.call, message.ended = "call-ended", id, call:get_child("tie-break") and "answered" or "retracted";
		elseif name == "finish" then
			local migrated = call:get_child("migrated");
			message.class, message.call, message.ended, message.migrated = "call-ended", id, "finished", migrated and migrated.attr.to;
		else
			return nil; -- about a call of the account
		end
		return true;
	end

	local function retraction(message, id, by_room, of_stanza)
		if not id or id == "" or #id > id_max then return nil; end
		message.element, message.class, message.of = "retraction", "retraction", id;
		message.by, message.of_stanza = by_room and "room" or nil, of_stanza and "true" or nil;
		message.room, message.nick, message["origin-id"] = nil, nil, nil;
		return true;
	end

	-- XEP-0424 and XEP-0425: true, false (it is one, but means nothing), or nil.
	local function read_retraction(message, group, nick)
		local fastened = found["apply-to"];
		local old = fastened and (fastened:get_child("retract", "urn:xmpp:message-retract:0")
			or fastened:get_child("moderated", "urn:xmpp:message-moderate:0"));
		if not found.retract and not old then return nil; end
		local moderated = old and old.name == "moderated"
			or found.retract and found.retract:get_child("moderated", "urn:xmpp:message-moderate:1");
		local id = found.retract and found.retract.attr.id or fastened and fastened.attr.id;
		if moderated or group and not nick then
			return (moderated and group and not nick and retraction(message, id, true, true)) or false;
		end
		return retraction(message, id, false, group) or false;
	end

	-- The room that a message invites to and who invites, or nil. Not from within a room: clients do not take that either.
	local function invitation_in(from, with, private)
		local invite = found.muc and from == with and found.muc:get_child("invite");
		if invite then return with, jid.prep(invite.attr.from or ""); end
		if private then return nil; end
		local room = found.conference and found.conference.attr.jid or trimmed_child(found["mix invitation"], "channel");
		room = room and #room <= id_max and jid.prep(room);
		return room and bare(room);
	end

	-- Takes the addresses of files that hold their keys out of texts, from that place on.
	local function remove_keys(texts, first)
		for i = #texts, first, -1 do
			local text = without_keys(cut(texts[i][2], limits.text));
			if is_blank(text) then table.remove(texts, i); else texts[i][2] = text; end
		end
	end

	-- What is there to read or to see, written into the message; nil if nothing.
	local function read_text(message, stanza, group, body)
		local ranges, address_left_out;
		if found.fallback then ranges, address_left_out = ranges_of(stanza, "body"); end
		local texts;
		if ranges or more.body or found.body and found.body.attr["xml:lang"] then
			texts = in_languages(stanza, "body", ranges);
			body = texts[1] and texts[1][2] or "";
		else
			body = clean(body);
			if body ~= "" and is_blank(body) then body = ""; end
		end
		local picture = false;
		if found.html and body == "" and not ranges then
			local words = { bytes = 0 };
			picture = words_of(found.html, words, 0);
			body = clean(trim(concat(words)));
			if is_blank(body) then body = ""; end
		end
		body = cut(body, limits.text);

		local kind, file;
		if found.oob or found.sharing or found.file or found.reference or found.sticker or find(body, ":", 1, true) then
			local rest;
			kind, file, rest = shared_in(stanza, body, address_left_out);
			if kind then body, texts = rest, nil; end -- a text in another language may hold the address
			if is_blank(body) then body = ""; end
		end
		if picture and body == "" and not kind then kind = "image"; end
		if texts then remove_keys(texts, 2); end
		if found.subject and not group then
			local subject = in_languages(stanza, "subject", found.fallback and ranges_of(stanza, "subject"))[1];
			local title = subject and without_keys(cut(subject[2], limits.text)) or "";
			if not is_blank(title) then body, texts = body == "" and title or title .. " — " .. body, nil; end
		end
		message.hidden = body;
		if found.spoiler and (body ~= "" or kind) then
			texts = in_languages(stanza, "spoiler");
			remove_keys(texts, 1);
			message.hide, body, file = "true", texts[1] and texts[1][2] or "", nil;
		elseif body == "" and not kind then
			return nil;
		end
		message.kind_of_file, message.file = kind, file;
		if kind then message.special = true; end
		message.body, message.texts = body, texts and (texts[2] or texts[1] and texts[1][1]) and texts or nil;
		return true;
	end

	-- In the order in which one excludes the other. Fills in the message; nil if nobody is to hear of it.
	function classify(message, stanza, account, group, nick, private, by_room)
		local body = found.body and found.body:get_text() or "";
		local call, id = call_in(stanza, group);
		if call and not (group and not nick) then return read_call(message, call, id); end
		if found.retract or found["apply-to"] then
			local known = read_retraction(message, group, nick);
			if known ~= nil then return known or nil; end
		end
		if found.reactions then return nil; end
		if group and not nick then return nil; end -- what the room itself says
		local encrypted = read_encrypted(body);
		if encrypted == false then return nil; end
		local replaces = found.replace and found.replace.attr.id;
		if replaces == "" then replaces = nil; end
		if encrypted then
			message.class, message.replaces = "encrypted", replaces;
			return true;
		end
		if replaces and found.body and is_blank(body) then return retraction(message, replaces); end
		local room, inviter;
		if not group then room, inviter = invitation_in(message.from, message.with, private); end
		if room then
			if room == account or found.muc and found.muc:get_child("decline") then return nil; end
			message.class, message.room, message.inviter = "invite", room, inviter;
			return true;
		end
		if by_room or found["attach-to"] or found["apply-to"] then return nil; end
		local form = found.form and found.form:get_child_with_attr("field", nil, "var", "FORM_TYPE");
		if found.captcha or trimmed_child(form, "value") == "http://jabber.org/protocol/muc#request" then return nil; end
		if found.muc and (found.muc:get_child("status") or found.muc:get_child("decline")) then return nil; end
		local late = found.delay;
		local text = read_text(message, stanza, group, body);
		message.replaces = replaces;
		if found.attention and not group and not late then
			message.class = "attention";
			return true;
		end
		if not text or stanza.attr.type == "headline" then return nil; end
		message.class = "text";
		return true;
	end
end

-- Messages: names -----------------------------------------------------------------------------------------------------

local known_names, room_of_this_server, name_key, name_at_hand, look_up_names;
do
	-- What the account calls a contact, or a room is called. Nothing is read from the disk while a stanza is on its way: what is
	-- not at hand is looked up when the events are sent, and remembered.
	known_names = new_cache(limits.names); -- account and address → { name or false, when }

	local cleaned = new_cache(limits.names); -- names as they are stored → as they are shown, or false

	local function name_in_roster(roster, address)
		local item = roster and address and roster[address];
		local name = type(item) == "table" and item.subscription and item.name;
		if not name then return nil; end
		local shown = cleaned:get(name);
		if shown == nil then
			shown = clean_name(name) or false;
			cleaned:set(name, shown);
		end
		return shown or nil;
	end

	local function roster_at_hand(account, user)
		if user and user.roster then return user.roster; end
		local cached = prosody.hosts[host].roster_cache;
		return cached and cached:get(account);
	end

	function room_of_this_server(room)
		local domain = match(room, "@(.*)$");
		local other = domain and prosody.hosts[domain];
		return other and other.modules and other.modules.muc;
	end

	local function look_up(account, address, is_room)
		local username = jid.node(account);
		if not is_room then return name_in_roster(rostermanager.load_roster(username, host), address); end
		local pep = prosody.hosts[host].modules.pep;
		if pep and pep.get_pep_service then -- XEP-0402
			local ok, items = pep.get_pep_service(username):get_items("urn:xmpp:bookmarks:1", true, { address });
			local item = ok and items and items[address];
			local conference = item and item:get_child("conference", "urn:xmpp:bookmarks:1");
			local name = conference and clean_name(conference.attr.name);
			if name then return name; end
		end
		local muc = room_of_this_server(address);
		local room = muc and muc.get_room_from_jid and muc.get_room_from_jid(address);
		return room and room.get_name and clean_name(room:get_name()) or nil;
	end

	function name_key(account, address) return account .. "\0" .. address; end

	-- The name if it is at hand; else whether it is to be looked up.
	function name_at_hand(account, user, address, is_room)
		if not is_room then
			local roster = roster_at_hand(account, user);
			if roster then return name_in_roster(roster, address), false; end
		end
		local known = known_names:get(name_key(account, address));
		if known and time.monotonic() - known.at <= limits.name_time then return known.name or nil, false; end
		return nil, true;
	end

	-- Looks up what was not at hand, for the events that are about to be sent and for later ones.
	function look_up_names()
		local waiting, learning, count = to_name, to_learn, 0;
		to_name, to_learn = {}, {};
		local function name_of(one)
			local key = name_key(one.account, one.address);
			local known = known_names:get(key);
			if not known or time.monotonic() - known.at > limits.name_time then
				if count == limits.lookups then return nil; end
				count = count + 1;
				local ok, name = xpcall(look_up, log_error, one.account, one.address, one.is_room);
				known = { name = ok and name or false, at = time.monotonic() };
				known_names:set(key, known);
			end
			return known.name;
		end
		for _, one in ipairs(waiting) do
			local name = name_of(one);
			if name then batch[one.place] = "' name='" .. escape(name); end
		end
		for _, one in ipairs(learning) do name_of(one); end
	end
end

-- Messages: writing them down -----------------------------------------------------------------------------------------

local types, details, details_usual, give_message;
do
	types = { chat = "chat", groupchat = "groupchat" };

	-- Attributes by the name that they have in a message; in pieces: each begins with the quote that ends the one before.
	details = {
		"type", "class", "id", "stanza-id", "origin-id"; -- the usual ones
		"call", "room", "nick", "replaces", "stamp", "mention", "unacked", "media", "ended", "kind", "file", "hide", "private", "inviter";
		"of", "of-stanza", "by";
	};
	details_usual = 5;
	local detail_keys = { kind = "kind_of_file", type = "kind", ["of-stanza"] = "of_stanza" };
	local detail_pieces = {};
	for i, name in ipairs(details) do
		detail_pieces[i], details[i] = "' " .. name .. "='", detail_keys[name] or name;
	end

	-- Writes a message event behind the pieces of `out`; returns the place of its last piece, and its bytes. It takes the bytes
	-- that a name may need where one is looked up: `name_place` in the message is where it goes.
	local function write_message(out, place, message, body, texts)
		local first = place;
		local element_name = message.element;
		out[place + 1], out[place + 2] = element_name == "retraction" and "<retraction to='" or "<message to='", escape(message.to);
		out[place + 3], out[place + 4] = "' from='", escape(message.from);
		out[place + 5], out[place + 6] = "' ts='", message.ts;
		place = place + 6;
		local bytes = 13; -- a ts is a number
		for i = 1, message.special and #details or details_usual do
			local value = message[details[i]];
			if value and #value <= id_max then
				out[place + 1], out[place + 2], place = detail_pieces[i], escape(value), place + 2;
			end
		end
		if message.name then
			out[place + 1], out[place + 2], place = "' name='", escape(message.name), place + 2;
		elseif message.name_wanted then
			out[place + 1], place, bytes = "", place + 1, bytes + limits.name_escaped;
			message.name_place = place;
		end
		if element_name == "retraction" or body == "" then
			out[place + 1], place = "'/>", place + 1;
		else
			if texts then
				out[place + 1], place = "'>", place + 1;
				for i = 1, #texts do
					local language = texts[i][1];
					out[place + 1] = language and "<body xml:lang='" .. escape(cut(language, limits.language)) .. "'>" or "<body>";
					out[place + 2], out[place + 3] = escape(cut(i == 1 and body or texts[i][2], body_max)), "</body>";
					place = place + 3;
				end
				out[place + 1], place = "</message>", place + 1;
			else
				out[place + 1], out[place + 2], out[place + 3] = "'><body>", escape(cut(body, body_max)), "</body></message>";
				place = place + 3;
			end
		end
		for i = first + 1, place do
			if i ~= first + 6 then bytes = bytes + #out[i]; end
		end
		if bytes <= stanza_max then return place, bytes; end
		if texts then return write_message(out, first, message, body); end
		return write_message(out, first, message, cut(body, floor(#body / 2))); -- each byte had to be escaped
	end

	-- `class` of a retraction is for this module's own use only.
	function give_message(message)
		local others = read[message.to];
		if others and others[message.conversation] then
			others[message.conversation], read_count = nil, read_count - 1;
			if not next(others) then read[message.to] = nil; end
		end
		if message.element == "retraction" then message.class = nil; end
		local last, bytes = write_message(batch, pieces, message, message.body, message.texts);
		if batch_bytes + bytes > stanza_max then
			flush();
			last, bytes = write_message(batch, pieces, message, message.body, message.texts);
		end
		if message.name_wanted then
			to_name[#to_name + 1] = {
				place = message.name_place, account = message.to, address = message.name_wanted, is_room = message.name_of_room;
			};
		end
		added(last, bytes);
	end
end

-- Messages: reporting them --------------------------------------------------------------------------------------------

local blocklists, remembered, remember, once, written_key, told_before, read_message;
do
	-- A number for a text, of 48 bits: what is remembered as numbers costs the garbage collector next to nothing.
	local function hash(text)
		local a, b, c, d, e, f = sha1(text):byte(1, 6);
		return a + 256 * (b + 256 * (c + 256 * (d + 256 * (e + 256 * f))));
	end

	-- What was seen in the last minutes: two tables in turns, so that forgetting costs nothing, and a bound.
	local function new_memory(size, seconds)
		return { young = {}, old = {}, count = 0, since = time.monotonic(), size = size, seconds = seconds };
	end

	function remembered(memory, key)
		local at = memory.young[key] or memory.old[key];
		return at and time.monotonic() - at <= memory.seconds;
	end

	function remember(memory, key)
		local at = time.monotonic();
		if memory.count >= memory.size or at - memory.since > memory.seconds then
			memory.young, memory.old, memory.count, memory.since = {}, memory.young, 0, at;
		end
		if not memory.young[key] then memory.count = memory.count + 1; end
		memory.young[key] = at;
	end

	function once(memory, key)
		if remembered(memory, key) then return false; end
		remember(memory, key);
		return true;
	end

	memories = {
		places = memories.places;
		stanzas = new_memory(limits.repeats, limits.repeat_time); -- hashes of what was reported
		written = new_memory(limits.written, limits.repeat_time); -- hashes of what sessions of this host wrote to rooms
		begun = new_memory(limits.calls, limits.repeat_time), over = new_memory(limits.calls, limits.repeat_time); -- account and call id
		initiated = new_memory(limits.calls, limits.repeat_time); -- the same, of calls without XEP-0353
		invited = new_memory(limits.calls, limits.invite_time); -- account and room
	};

	-- What a session wrote to a room, as its reflection will be.
	function written_key(account, room, id, stanza)
		return hash(concat({ account, room, id, stanza:get_child_text("body") or "" }, "\0"));
	end

	-- Whether the account blocks that address (XEP-0191): mod_blocklist before Prosody 13 asks that of a room only, and not of who
	-- invites to it.
	blocklists = new_cache(limits.blocklists);
	local blocklist_store;

	local function is_blocked(account, address)
		if not is_loaded(host, "blocklist") then return false; end
		local known = blocklists:get(account);
		if not known or time.monotonic() - known.at > limits.blocklist_time then
			blocklist_store = blocklist_store or module:open_store("blocklist");
			known = { list = blocklist_store:get(jid.node(account)) or {}, at = time.monotonic() };
			blocklists:set(account, known);
		end
		return known.list[address] or known.list[bare(address)] or known.list[jid.host(address)] or false;
	end

	-- The last one: mod_mam adds its own behind what a sender made up (0.12.3 leaves that in where it archives the message).
	local function stanza_id(stanza, by)
		local id;
		for _, tag in all(stanza, "stanza-id") do
			if tag.attr.by == by then id = tag.attr.id; end
		end
		return id;
	end

	local key_parts = {};

	-- The same stanza again: from the same full sender, with the same id and the same text. Without an id: the same words to
	-- another resource of the account; to the same JID again they are a new message.
	local function is_repeat(to, message)
		local id = message["origin-id"] or message.id;
		key_parts[1], key_parts[2], key_parts[3], key_parts[4] = message.to, message.from, id or "", message.class;
		key_parts[5], key_parts[6], key_parts[7] = message.call or message.of or "", message.payload or "", message.hidden or message.body;
		local key = hash(concat(key_parts, "\0"));
		if id then return not once(memories.stanzas, key); end
		if to == message.to then return false; end
		local at, seen = time.monotonic(), copies:get(key);
		if seen and at - seen.at <= copy_window and seen.count < copies_max and not seen[to] then
			seen[to], seen.count = true, seen.count + 1;
			return true;
		end
		copies:set(key, { at = at, count = 1, [to] = true });
		return false;
	end

	-- Whether it was told before: a stanza, a call that begins or ends, an invitation to a room.
	function told_before(to, message)
		local class = message.class;
		if class == "invite" and not once(memories.invited, message.to .. "\0" .. message.room) then return true; end
		if class == "call" or class == "call-ended" then
			local key = message.to .. "\0" .. message.call;
			if message.migrated then remember(memories.begun, message.to .. "\0" .. message.migrated); end -- to another device of the peer
			return not once(class == "call" and memories.begun or memories.over, key);
		end
		return is_repeat(to, message);
	end

	-- Milliseconds of XEP-0203 and XEP-0091.
	local function parse_stamp(stamp)
		local seconds = stamp and datetime.parse((gsub(stamp, "%.%d+", "", 1)));
		if not seconds or seconds < 0 then return nil; end
		local fraction = match(stamp, "%.(%d%d?%d?)");
		return ("%d"):format(floor(seconds) * 1000 + (fraction and floor(tonumber("0." .. fraction) * 1000 + 0.5) or 0));
	end

	-- The time that a message brings along; false if it says that it is history of that room. What this server held back itself,
	-- for the account or in the queue of a session, says nothing new.
	local function time_of(stanza, account, room)
		local stamp;
		for _, delay in all(stanza, "delay") do
			local by = delay.attr.from;
			if room and by and #by <= limits.address and bare(jid.prep(by)) == room then return false; end -- XEP-0045 section 7.2.13
			if by ~= host and by ~= account then stamp = stamp or parse_stamp(delay.attr.stamp); end
		end
		return stamp;
	end

	-- MUC/Sub: a room sends its message inside an event to those who are not there.
	local function subscribed_message(event, room)
		local items = event:get_child("items");
		if not items or items.attr.node ~= "urn:xmpp:mucsub:nodes:messages" then return nil; end
		local message = items:find("item/{jabber:client}message");
		local from = message and message.attr.type == "groupchat" and jid.prep(message.attr.from or "");
		if not from or bare(from) ~= room or from == room then return nil; end
		return message, from;
	end

	-- A room sends its history between a newcomer's own presence and its subject (XEP-0045 section 7.1), and not all of them say
	-- that it is old.
	local function is_history(session, room)
		local place = session and notes(session).rooms[room];
		if not place or not place.history_until then return false; end
		if found.subject and not found.body then place.history_until = nil; end
		return place.history_until ~= nil and time.monotonic() < place.history_until;
	end

	-- The account's own words, which a room reflects to each of its sessions, under whichever nick. The nickname of who is absent may be
	-- another's now.
	local function is_own_word(message, stanza, nick, in_room, is_channel)
		if in_room and is_own("nick", nick) or found["occupant-id"] and is_own("occupant", found["occupant-id"].attr.id) then return true; end
		local mix = is_channel and found.mix:get_child_text("jid");
		if mix and bare(jid.prep(mix)) == message.to then return true; end
		local id = message["origin-id"] or message.id;
		return id and remembered(memories.written, written_key(message.to, message.with, id, stanza)) or false;
	end

	-- Fills in the message event for this account; nil if the account is not to hear of it. `session` is the one the stanza is
	-- addressed to, if any, `user` all of them.
	function read_message(message, stanza, account, session, user)
		local attr = stanza.attr;
		local kind, from = attr.type, attr.from or host;
		if kind == "error" then return nil; end
		local with = bare(from);
		if with == account then return nil; end
		local special = look_at(stanza);
		if found["not a message"] then return nil; end
		if found.event and from == with then
			local inner, occupant = subscribed_message(found.event, with);
			if inner then
				stanza, from, kind, attr, session = inner, occupant, "groupchat", inner.attr, nil;
				look_at(stanza);
				if found["not a message"] then return nil; end
			end
		end
		if kind == "headline" and not found.attention then return nil; end

		if message.special then
			for i = details_usual + 1, #details do message[details[i]] = nil; end
			message.texts, message.payload, message.migrated = nil, nil, nil;
		end
		message.element, message.to, message.from, message.with = "message", account, from, with;
		message.conversation, message.body, message.hidden = with, "", nil;
		message.name, message.name_wanted, message.name_of_room, message["stanza-id"] = nil, nil, nil, nil;
		message.id, message.kind = attr.id, types[kind] or "normal"; -- RFC 6121 section 5.2.2
		message["origin-id"] = found["origin-id"] and found["origin-id"].attr.id;

		local group, nick, private, by_room = kind == "groupchat", nil, false, false;
		local in_room = places_in(user, with, kind == "groupchat" and account);
		if group then
			nick = jid.resource(from);
			if is_history(session, with) then return nil; end
			local is_channel = found.mix and not session and not in_room and not room_of_this_server(with); -- in a room anybody can say so
			if nick and is_own_word(message, stanza, nick, in_room, is_channel) then return nil; end
			message["stanza-id"] = stanza_id(stanza, with);
			message.room, message.nick = with, is_channel and found.mix:get_child_text("nick") or nick;
		else
			if in_room or room_of_this_server(with) then
				private = from ~= with;
				by_room = not private;
			end
			if private then message.private, message.conversation = "true", from; end
			if is_loaded(host, "mam") then message["stanza-id"] = stanza_id(stanza, account); end -- else nobody removes what others put there
		end
		message.special = special or group or private or by_room;
		if found.delay then
			local stamp = time_of(stanza, account, group and with);
			if stamp == false then return nil; end
			message.stamp = stamp;
		end
		if not classify(message, stanza, account, group, nick, private, by_room) then return nil; end

		local class = message.class;
		local named, is_room = with, group or private;
		if class == "retraction" then return true; end
		if class == "invite" then
			if places_in(user, message.room) or message.inviter and is_blocked(account, message.inviter) then return nil; end
			named = message.inviter and bare(message.inviter) or with;
			if named == message.room then return true; end -- an occupant, who is named by the nick in the address
		elseif class == "encrypted" then
			local tag = found.axolotl or found.omemo;
			message.payload = tag and tag:get_child_text("payload");
		end
		if group and is_mention(stanza, account, with, class == "text" and message.hidden or "") then message.mention = "true"; end
		local name, wanted = name_at_hand(account, user, named, is_room);
		message.name, message.name_wanted, message.name_of_room = name, wanted and named or nil, is_room;
		return true;
	end
end

-- What the client of a session has not acknowledged, each message once in the life of its queue.
local function unacked_of(session)
	local messages, account = {}, session.username .. "@" .. host;
	local queue = session.smacks and session.outgoing_stanza_queue;
	for _, stanza in ipairs(queue and queue:count_unacked() > 0 and queue:table() or {}) do
		if stanza.name == "message" and not reported[stanza] then
			reported[stanza] = true;
			local delay = stanza:get_child("delay", "urn:xmpp:delay"); -- mod_smacks notes when it was queued
			local message = stanza:find("{urn:xmpp:carbons:2}received/{urn:xmpp:forward:0}forwarded/{jabber:client}message");
			if message then -- a copy this device was to show: the event is the message itself
				message = st.clone(message);
				message.attr.xmlns = nil;
			end
			local lost = {};
			if read_message(lost, message or stanza, account, session, bare_sessions[account]) then
				lost.unacked, lost.special, lost.ts = "true", true, milliseconds(delay and datetime.parse(delay.attr.stamp));
				messages[#messages + 1] = lost;
			end
		end
	end
	return messages;
end

local function give_all(messages)
	for _, message in ipairs(messages) do give_message(message); end
end

-- A client that does not answer ---------------------------------------------------------------------------------------

local function spoke(session)
	local own = session.push_relay;
	if not own or not (own.watch or own.overdue) then return; end
	if own.watch then own.watch:stop(); end
	own.watch, own.overdue = nil, nil;
	report(session);
end

local function listen(data, session)
	local ok, err = pcall(spoke, session);
	if not ok then module:log("error", "Reading a session: %s", err); end
	return data;
end

local function overdue(session)
	if session.type ~= "c2s" or session.hibernating or session.destroyed then return; end
	local own = notes(session);
	if own.overdue then return; end
	own.overdue = true;
	filters.add_filter(session, "bytes/in", listen, 1000); -- cleared by anything it sends
	report(session);
	give_all(unacked_of(session));
end

-- Called when the message is in the session's queue. mod_smacks asks an inactive client only now and then: ask now.
local function expect_answer(session)
	local own = session.push_relay;
	if not own or own.watch or state_of(session) ~= "inactive" or session.destroyed then return; end
	local queue = session.smacks and session.outgoing_stanza_queue;
	if not queue or queue:count_unacked() == 0 then return; end
	filters.add_filter(session, "bytes/in", listen, 1000);
	own.watch = module:add_timer(ack_timeout, function ()
		own.watch = nil;
		if state_of(session) == "inactive" then overdue(session); end
	end);
	if not session.awaiting_ack then session.send(st.stanza("r", { xmlns = session.smacks })); end
end

function end_gathering()
	flushing = false;
	local sessions = expecting;
	expecting = {};
	if #to_name > 0 or #to_learn > 0 then look_up_names(); end
	flush();
	for session in pairs(sessions) do expect_answer(session); end
end

-- Hooks ---------------------------------------------------------------------------------------------------------------

local arrived = {}; -- one for all: it is written down before the next comes

-- Accounts that events were about, to find out that they are gone: prosodyctl deluser works beside the server.
local known, known_count, known_next = {}, 0, nil;

local function know(account)
	if known[account] or known_count >= limits.known then return; end
	known[account], known_count = true, known_count + 1;
end

local function account_event(name, account)
	give(element(name, { jid = account, ts = milliseconds() }), true);
end

local function forget_account(account)
	if known[account] then
		if known_next == account then known_next = next(known, account); end
		known[account], known_count = nil, known_count - 1;
	end
	local gone = {};
	for key in memories.places:items() do
		if sub(key, 1, #account + 1) == account .. "\0" then gone[#gone + 1] = key; end
	end
	for _, key in ipairs(gone) do memories.places:set(key, nil); end
	account_event("account-removed", account);
end

local function look_for_removed_accounts()
	for _ = 1, math.min(limits.known_step, known_count) do
		local account = known_next or next(known);
		if not account then return; end
		known_next = next(known, account);
		if not user_exists(jid.node(account), host) then forget_account(account); end
	end
end

-- Whether the account is there; says so if it is gone, or was disabled before the module was loaded.
local function is_there(account)
	local username = jid.node(account);
	if not user_exists(username, host) then
		if known[account] then forget_account(account); end
		return false;
	end
	-- once for each: what changes later the server says
	if user_is_enabled and not known[account] and user_is_enabled(username, host) == false then account_event("account-disabled", account); end
	know(account);
	return true;
end

local function message_arrived(event)
	local stanza, to = event.stanza, event.stanza.attr.to;
	if not to then return; end -- to itself
	local account, session = bare(to), full_sessions[to];
	-- to a session that is gone: it goes back as an error and the room removes the occupant
	if stanza.attr.type == "groupchat" and to ~= account and not session then return; end
	local user = bare_sessions[account];
	if not read_message(arrived, stanza, account, session, user) then return; end
	if not user and not is_there(account) then return; end
	if told_before(to, arrived) then return; end
	know(account);
	arrived.ts = milliseconds();
	give_message(arrived);
	if not user or ack_timeout <= 0 then return; end
	for _, other in pairs(user.sessions) do
		if other.smacks and state_of(other) == "inactive" then expecting[other] = true; end
	end
end

-- Said once: again only after something new has come.
local function give_displayed(account, with)
	local others = read[account];
	if others and others[with] then return; end
	if read_count >= read_max then read, read_count, others = {}, 0, nil; end
	if not others then
		others = {};
		read[account] = others;
	end
	others[with], read_count = true, read_count + 1;
	give(element("displayed", { account = account, with = with, ts = milliseconds() }), true);
end

-- An event that no message of somebody else makes.
local function give_own(fields)
	fields.element, fields.with, fields.conversation, fields.special = "message", bare(fields.from), bare(fields.from), true;
	fields.body, fields.ts = "", milliseconds();
	give_message(fields);
end

local function end_call(account, from, id, ended, stanza)
	if not once(memories.over, account .. "\0" .. id) then return; end
	local kind = stanza.name == "iq" and "chat" or types[stanza.attr.type] or "normal";
	give_own({ to = account, from = from, kind = kind, class = "call-ended", id = stanza.attr.id, call = id, ended = ended });
end

local answers = { accept = "answered", proceed = "answered", reject = "rejected" };

-- Whether what a session sends is something to read, for it has seen the conversation then.
local function has_content()
	if found.reactions or found.sharing or found.oob or found.file or found.sticker or found.attention then return true; end
	local body = found.body and found.body:get_text() or "";
	local encrypted = read_encrypted(body);
	if encrypted ~= nil then return encrypted; end
	return not is_blank(body);
end

local function message_sent(event)
	local origin, stanza = event.origin, event.stanza;
	local kind, to = stanza.attr.type, stanza.attr.to;
	if origin.type ~= "c2s" or origin.host ~= host or kind == "error" then return; end
	local account = origin.username .. "@" .. host;
	local with = bare(to) or account;
	look_at(stanza);
	local call, id = call_in(stanza, kind == "groupchat");
	if call then -- taken or refused by a device of the account: the others stop ringing
		local ended = answers[call.name];
		if ended and id then end_call(account, with, id, ended, stanza); end
		return;
	end
	if with == account then return; end
	local conversation = with;
	if kind == "groupchat" then
		local own_id, origin_id = stanza.attr.id, found["origin-id"] and found["origin-id"].attr.id;
		if own_id then remember(memories.written, written_key(account, with, own_id, stanza)); end
		if origin_id and origin_id ~= own_id then remember(memories.written, written_key(account, with, origin_id, stanza)); end
	elseif to ~= with and places_in(bare_sessions[account], with) then -- a private message of a room
		conversation = to;
	end
	if read[account] and read[account][conversation] then return; end
	if found.displayed or has_content() then give_displayed(account, conversation); end
end

-- XEP-0490: the client publishes what it has displayed to its own account; the item's id is the conversation, the full JID for
-- an occupant's private messages. XEP-0402: a bookmark names its room.
local function item_published(event)
	local origin, stanza = event.origin, event.stanza;
	if origin.type ~= "c2s" or stanza.attr.type ~= "set" or not event.to_self then return; end
	local publish = stanza.tags[1]:get_child("publish");
	local node = publish and publish.attr.node;
	if node ~= "urn:xmpp:mds:displayed:0" and node ~= "urn:xmpp:bookmarks:1" then return; end
	local account = origin.username .. "@" .. host;
	for item in publish:childtags("item") do
		local with = item.attr.id and #item.attr.id <= limits.address and jid.prep(item.attr.id);
		if with and node == "urn:xmpp:bookmarks:1" then
			known_names:set(name_key(account, with), nil);
		elseif with then
			give_displayed(account, with);
		end
	end
end

local call_arrived, call_answered;
do
	-- Calls without XEP-0353 are an IQ to one session (XEP-0166): if that one sleeps, nobody hears it ring.

	local function jingle_in(stanza)
		local jingle = stanza.attr.type == "set" and stanza.tags[1];
		if not jingle or jingle.name ~= "jingle" or jingle.attr.xmlns ~= "urn:xmpp:jingle:1" then return nil; end
		local sid = jingle.attr.sid;
		return sid and sid ~= "" and #sid <= id_max and jingle.attr.action, jingle, sid;
	end

	function call_arrived(event)
		local action, jingle, sid = jingle_in(event.stanza);
		if not action then return; end
		local from, account = event.stanza.attr.from or host, bare(event.stanza.attr.to);
		if bare(from) == account then return; end
		local key = account .. "\0" .. sid;
		if action == "session-terminate" and remembered(memories.initiated, key) then
			end_call(account, from, sid, "retracted", event.stanza);
		elseif action == "session-initiate" then
			local session = full_sessions[event.stanza.attr.to];
			if not session or state_of(session) ~= "hibernating" then return; end
			local described = { tags = {} };
			for _, content in ipairs(jingle.tags) do
				local description = content.name == "content" and content.tags[1];
				if description then described.tags[#described.tags + 1] = description; end
			end
			local media = media_of(described);
			if not media or not once(memories.begun, key) then return; end
			remember(memories.initiated, key);
			local name, wanted = name_at_hand(account, bare_sessions[account], bare(from), false);
			give_own({ to = account, from = from, kind = "chat", class = "call", id = event.stanza.attr.id, call = sid, media = media;
				name = name, name_wanted = wanted and bare(from) or nil });
		end
	end

	function call_answered(event)
		if event.origin.type ~= "c2s" then return; end
		local action, _, sid = jingle_in(event.stanza);
		if action ~= "session-accept" and action ~= "session-terminate" then return; end
		local account = event.origin.username .. "@" .. host;
		if remembered(memories.initiated, account .. "\0" .. sid) then
			end_call(account, event.stanza.attr.to, sid, action == "session-accept" and "answered" or "rejected", event.stanza);
		end
	end
end

local function asked_to_enter(session, room)
	for to in pairs(session.directed or {}) do
		if bare(to) == room then return true; end
	end
	return false;
end

-- Status 110 is the room's word for "this is you" (XEP-0045 section 7.2.2): only so are its nicknames known for sure. But
-- anybody can say it, so what has not been asked is no room.
local function occupant_presence(event)
	local stanza = event.stanza;
	local x = stanza:get_child("x", "http://jabber.org/protocol/muc#user");
	local session = x and full_sessions[stanza.attr.to];
	if not session or not x:get_child_with_attr("status", nil, "code", "110") then return; end
	local room, rooms = bare(stanza.attr.from), notes(session).rooms;
	if stanza.attr.type == nil and asked_to_enter(session, room) then
		local place = rooms[room] or { history_until = time.monotonic() + limits.history_time };
		local item, occupant = x:get_child("item"), stanza:get_child("occupant-id", "urn:xmpp:occupant-id:0");
		place.nick, place.occupant = jid.resource(stanza.attr.from) or "", occupant and occupant.attr.id;
		place.role, place.affiliation = item and item.attr.role, item and item.attr.affiliation;
		rooms[room] = place;
		local id = place.occupant and #place.occupant <= id_max and place.occupant or "";
		memories.places:set(session.username .. "@" .. host .. "\0" .. room, place.nick .. "\0" .. id);
	elseif not x:get_child_with_attr("status", nil, "code", "303") then -- not to return under another nick
		rooms[room] = nil;
	end
end

-- Only a new request counts: clients ask again at each login. What is allowed beforehand or blocked makes no request.
local function subscription_asked(event, run)
	local stanza = event.stanza;
	local account, from = bare(stanza.attr.to), bare(stanza.attr.from);
	local username = jid.node(account);
	if not username or not from or from == account then return run(); end
	local before = rostermanager.is_contact_pending_in(username, host, from);
	local result = run();
	if not before and rostermanager.is_contact_pending_in(username, host, from) and is_there(account) then
		give_own({ to = account, from = from, class = "subscribe", id = stanza.attr.id });
	end
	return result;
end

-- What is blocked from now on may be waiting to be shown.
local function addresses_blocked(event)
	local username = event.origin.username;
	if not username or event.origin.host ~= host then return; end
	local account, count = username .. "@" .. host, 0;
	blocklists:set(account, nil);
	for _, item in ipairs(event.stanza.tags[1].name == "block" and event.stanza.tags[1].tags or {}) do
		local address = item.attr.jid and #item.attr.jid <= limits.address and jid.prep(item.attr.jid);
		if address and count < limits.blocked then
			count = count + 1;
			give(element("blocked", { account = account, jid = address, ts = milliseconds() }), true);
		end
	end
end

local function csi_changed(state)
	return function (event)
		notes(event.origin).csi = state;
		report(event.origin);
	end
end

-- XEP-0386: what a client says of itself while it binds, mod_sasl2_bind2 (10) only writes down.
local function bound_inline(event)
	local session = event.session;
	notes(session).csi = session.state == "inactive" and "inactive" or "active";
	report(session);
end

local function hibernation_started(event)
	local session = event.origin;
	report(session);
	give_all(unacked_of(session));
end

-- A resumed stream starts active (XEP-0352 section 5), though session.state keeps what it was before.
local function resumed(event)
	local session = event.resumed;
	local own = notes(session);
	if own.watch then own.watch:stop(); end
	own.csi, own.overdue, own.watch = "active", nil, nil;
	report(session);
end

-- mod_smacks empties the queue of a session that cannot be resumed, and rooms drop the occupant: take it before. After
-- hibernation there is nothing to say that was not said.
local function about_to_end(event)
	local session = event.session;
	if not session.hibernating and not session.resumption_token then ending[session] = unacked_of(session); end
end

local function ended(event)
	local session = event.session;
	report(session, true);
	give_all(ending[session] or {});
end

-- The same for all sessions at once, before mod_smacks gives up its queues at a shutdown (priority -90).
local function server_stopping()
	stopping = true;
	each_session(function (session)
		if not session.hibernating then give_all(unacked_of(session)); end
	end);
	flush();
end

local function account_changed(name)
	return function (event)
		if event.host ~= host then return; end
		local account = event.username .. "@" .. host;
		if name == "account-removed" then
			forget_account(account);
		else
			know(account);
			account_event(name, account);
		end
	end
end

local function heartbeat_event() return element("heartbeat", { interval = ("%d"):format(heartbeat) }); end

local function beat() give(heartbeat_event(), false); end

local function send_sessions(send)
	local page, bytes = {}, 0;
	local function send_page()
		if #page > 0 then send(events("snapshot='true'", concat(page))); end
		page, bytes = {}, 0;
	end
	each_session(function (session)
		local event = session_event(session);
		if #page == page_max or bytes + #event > stanza_max then send_page(); end
		page[#page + 1], bytes = event, bytes + #event;
	end);
	send_page();
end

-- A number of another epoch, or that was never given out, says nothing of what the relay has.
local function position_in(attr)
	local position = attr.epoch == epoch and (attr.seq or ""):match("^%d+$") and tonumber(attr.seq) or 0;
	return position <= seq and position or 0;
end

-- All in one go: sessions, the result, what is held, and from then on whatever happens.
local function snapshot_requested(event)
	local origin, stanza = event.origin, event.stanza;
	if not is_relay(origin) then return; end
	local request = stanza.tags[1];
	flush();
	local position = position_in(request.attr);
	release(position);
	enforce_bound();

	send_sessions(origin.send);
	origin.send(st.reply(stanza):tag("snapshot", {
		xmlns = xmlns_bridge, epoch = epoch, seq = ("%d"):format(seq), dropped = ("%d"):format(dropped);
		server = "Prosody " .. (prosody.version or "unknown"), module = module_version;
	}));
	for i = held_first, held_last do
		local number, old = "seq='" .. held[i].seq .. "'", held[i].stanza;
		origin.send(start_of_events(number .. " replay='true'") .. sub(old, #start_of_events(number) + 1));
	end
	link_up(origin);
	beat(); -- says the interval
	module:log("debug", "Snapshot for %s: position %d of %d, %d events held", component, position, seq, held_count);
	return true;
end

-- To a relay that is connected and has no snapshot: it will ask.
local function say_hello()
	local other = prosody.hosts[component];
	local connected = other and other.modules and other.modules.component and other.modules.component.session;
	if connected then
		seq = seq + 1;
		connected.send(events("seq='" .. seq .. "'", heartbeat_event()));
	end
end

local function acknowledged(event)
	local ack = is_relay(event.origin) and event.stanza:get_child("ack", xmlns_bridge);
	if not ack then return; end
	local before = in_flight;
	release(position_in(ack.attr));
	if not link and before > 0 and in_flight == 0 then -- no longer stuck
		flush();
		say_hello();
	end
	return true;
end

local function hook(name, handler, priority)
	module:hook(name, function (event)
		local ok, result = xpcall(handler, log_error, event);
		if ok then return result; end
	end, priority);
end

local function hook_global(name, handler, priority)
	module:hook_global(name, function (event) xpcall(handler, log_error, event); end, priority);
end

hook("resource-bind", function (event) report(event.session); end, -100);
hook("enable-bind-features", bound_inline, -100);
hook("csi-client-active", csi_changed("active"));
hook("csi-client-inactive", csi_changed("inactive"));
hook("smacks-hibernation-start", hibernation_started, 100);
hook("smacks-hibernation-end", resumed, 100);
hook("smacks-ack-delayed", function (event) overdue(event.origin); end); -- also an active client, after the server's own limit
hook("pre-resource-unbind", about_to_end, 100);
hook("resource-unbind", ended, 100);
-- mod_presence ends the event before it could tell the outcome: look at the session when it is done.
module:wrap_event("presence/bare", function (handlers, name, event)
	local function run() return handlers(name, event); end
	local result, origin = nil, event.origin;
	if event.stanza.attr.type == "subscribe" then
		local done = false; -- whatever goes wrong here, the others get it once
		xpcall(subscription_asked, log_error, event, function ()
			done = true;
			result = run();
			return result;
		end);
		if not done then result = run(); end
	else
		result = run();
	end
	if origin and origin.type == "c2s" and origin.host == host then xpcall(report, log_error, origin); end
	return result;
end);
for _, action in ipairs({ "block", "unblock" }) do
	module:wrap_event("iq-set/self/urn:xmpp:blocking:" .. action, function (handlers, name, event)
		local result = handlers(name, event);
		if result then xpcall(addresses_blocked, log_error, event); end
		return result;
	end);
end
hook("presence/full", occupant_presence, 1);

-- After mod_blocklist (100), mod_mam (0, which adds the stanza-id) and mod_carbons (-0.5), just before mod_message (-1).
hook("message/bare", message_arrived, -0.9);
hook("message/full", message_arrived, -0.9);
hook("pre-message/bare", message_sent, -2);
hook("pre-message/full", message_sent, -2);
hook("pre-message/host", message_sent, -2);
hook("iq/bare/http://jabber.org/protocol/pubsub:pubsub", item_published, 1);
hook("iq/full", call_arrived, 0.1); -- before mod_iq (0) hands it over
hook("pre-iq/full", call_answered, -2);
hook_global("user-deleted", account_changed("account-removed"));
hook_global("user-disabled", account_changed("account-disabled")); -- since Prosody 13, as the next
hook_global("user-enabled", account_changed("account-enabled"));
hook_global("server-stopping", server_stopping);

hook("iq-get/host/" .. xmlns_bridge .. ":snapshot", snapshot_requested);
hook("message/host", acknowledged, 1);

module:add_timer(heartbeat, function ()
	xpcall(function () enforce_bound(); beat(); end, log_error);
	return heartbeat;
end);
module:add_timer(60, function ()
	xpcall(look_for_removed_accounts, log_error);
	return 60;
end);

function module.load()
	if not module.reloading then say_hello(); end
end

function module.save()
	flush();
	return {
		epoch = epoch, seq = seq, held = held, first = held_first, last = held_last, count = held_count, bytes = held_bytes;
		dropped = dropped, dropped_seq = dropped_seq, reported = reported;
		link = link, in_flight = in_flight, sizes = sizes, acked = acked;
		memories = memories, known = known, known_count = known_count;
	};
end

function module.restore(saved)
	if not saved.epoch then return; end
	epoch, seq, held, held_first, held_last, held_count = saved.epoch, saved.seq, saved.held, saved.first, saved.last, saved.count;
	held_bytes = saved.bytes or 0; -- a version before this did not count them
	dropped, dropped_seq, reported = saved.dropped, saved.dropped_seq, saved.reported;
	link, in_flight, sizes, acked = saved.link, saved.in_flight, saved.sizes, saved.acked;
	if saved.memories then -- a version before this had none
		saved.memories.places = saved.memories.places or memories.places;
		memories, known, known_count = saved.memories, saved.known, saved.known_count;
	end
	each_session(function (session)
		local own = notes(session);
		if own.overdue then filters.add_filter(session, "bytes/in", listen, 1000); end
		if ack_timeout > 0 then expect_answer(session); end -- who was to answer when the code before this went
	end);
end

function module.unload()
	if not module.reloading and not stopping then give(element("end", {}), false); end
	flush();
	each_session(function (session)
		filters.remove_filter(session, "bytes/in", listen);
		local own = session.push_relay;
		if own and own.watch then
			own.watch:stop();
			own.watch = nil;
		end
		if not module.reloading then session.push_relay = nil; end
	end);
end
