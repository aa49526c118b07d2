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
local user_exists = require "core.usermanager".user_exists;
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
local module_version = "1.0.0";
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
local expecting = {}; -- sessions that were inactive when a message came for them, to be asked for an answer

local ending = setmetatable({}, { __mode = "k" }); -- session → the events for what it leaves unacknowledged
local read, read_count = {}, 0; -- by account and other: conversations in which nothing has come since the account read them
local copies = new_cache(1000); -- hash of a message → when, and to which JIDs of the account it came

local function bare(address) return address and match(address, "^[^/]+"); end -- of an address that is prepared already
local function milliseconds(seconds) return floor((seconds or now()) * 1000); end
local function escape(text) return find(text, "[&<>'\"]") and xml_escape(text) or text; end

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

local function is_relay(origin) return origin.type == "component" and origin.host == component; end

-- Sessions ------------------------------------------------------------------------------------------------------------

-- What we know about a session lives and dies with it: { sid, csi, overdue, watch, nicks, told, since }.
local function notes(session)
	local own = session.push_relay;
	if not own then
		local inactive = session.state == "inactive" or session.state == "flushing";
		own = { sid = new_sid(), csi = inactive and "inactive" or "active", nicks = {} };
		for to in pairs(session.directed or {}) do own.nicks[bare(to)] = jid.resource(to); end -- rooms it is in
		session.push_relay = own;
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

-- Messages: what they are ---------------------------------------------------------------------------------------------

-- By namespace without its version, and name.
local payloads = {
	[""] = { body = "text" };
	["urn:xmpp:eme"] = { encryption = "encrypted" }; -- XEP-0380
	["jabber:x:encrypted"] = { x = "encrypted" }; -- XEP-0027
	["urn:xmpp:openpgp"] = { openpgp = "encrypted" }; -- XEP-0373
	["eu.siacs.conversations.axolotl"] = { encrypted = "omemo" }; -- XEP-0384 before 0.4
	["urn:xmpp:omemo"] = { encrypted = "omemo" }; -- with XEP-0420 inside
	["urn:xmpp:jingle-message"] = { -- XEP-0353
		propose = "call", retract = "call-ended", finish = "call-ended";
		accept = "taken", proceed = "taken", reject = "taken"; -- by a device of the account: the others stop ringing
	};
	["urn:xmpp:chat-markers"] = { displayed = "displayed" }; -- XEP-0333
	["jabber:x:conference"] = { x = "invite" }; -- XEP-0249
	["http://jabber.org/protocol/muc#user"] = { x = "muc" };
	["urn:xmpp:carbons"] = { sent = "not a message", received = "not a message" };
	["urn:xmpp:mam"] = { result = "not a message" };
	["urn:xmpp:delay"] = { delay = "delay" };
};
local by_namespace, namespaces = {}, 0; -- as they come, with their versions: bounded, because strangers invent them
local namespaces_max = 1000;

local function meaning_of(tag)
	local xmlns = tag.attr.xmlns or "";
	local names = by_namespace[xmlns];
	if names == nil then
		names = payloads[gsub(xmlns, ":%d+$", "")] or false;
		if namespaces < namespaces_max then by_namespace[xmlns], namespaces = names, namespaces + 1; end
	end
	return names and names[tag.name];
end

--- The class of a message and its body or call id, or nil if nobody should hear of it.
local function classify(stanza)
	local kind = stanza.attr.type;
	if kind == "error" or kind == "headline" then return nil; end
	local text, found;
	for _, tag in ipairs(stanza.tags) do
		local meaning = meaning_of(tag);
		if meaning == "text" then
			text = text or tag;
		elseif meaning == "not a message" then
			return nil;
		elseif meaning == "delay" then
			if kind == "groupchat" and tag.attr.from == bare(stanza.attr.from) then return nil; end -- XEP-0045 section 7.2.13: history
		elseif meaning then
			found = found or {};
			if meaning ~= "muc" then
				found[meaning] = found[meaning] or tag;
			elseif tag:get_child("invite") then
				found.invite = tag;
			end
		end
	end
	local body = text and text:get_text() or "";
	if not found then
		if body == "" then return nil; end
		if find(body, "^%?OTR") then return "encrypted", ""; end
		return "text", body;
	end
	if found.call and found.call.attr.id then return "call", body, found.call.attr.id; end
	if found["call-ended"] and found["call-ended"].attr.id then return "call-ended", "", found["call-ended"].attr.id; end
	if found.invite then return "invite", body; end
	if found.omemo and not found.omemo:get_child("payload") and body == "" then return nil; end -- only moves keys
	if found.omemo or found.encrypted or find(body, "^%?OTR") then return "encrypted", ""; end
	if body ~= "" then return "text", body; end
	return nil;
end

local function cut(text, bytes)
	if #text <= bytes then return text; end
	while bytes > 0 and text:byte(bytes + 1) >= 0x80 and text:byte(bytes + 1) < 0xC0 do bytes = bytes - 1; end
	return text:sub(1, bytes);
end

local types = { chat = "chat", groupchat = "groupchat" };

-- Attributes in pieces: each begins with the quote that ends the one before.
local details = { "' id='", "' stanza-id='", "' call='", "' room='", "' nick='" };

-- Writes a message event behind the pieces of `out`; returns the place of its last piece, and its bytes.
local function write_message(out, place, message, body)
	local first = place;
	out[place + 1], out[place + 2] = "<message to='", escape(message.to);
	out[place + 3], out[place + 4] = "' from='", escape(message.from);
	out[place + 5], out[place + 6] = "' type='", message.kind;
	out[place + 7], out[place + 8] = "' class='", message.class;
	out[place + 9], out[place + 10] = "' ts='", message.ts;
	place = place + 10;
	for i = 1, #details do
		local value = message[i];
		if value and #value <= id_max then
			out[place + 1], out[place + 2], place = details[i], escape(value), place + 2;
		end
	end
	if message.mention then out[place + 1], place = "' mention='true", place + 1; end
	if message.unacked then out[place + 1], place = "' unacked='true", place + 1; end
	if body == "" then
		out[place + 1], place = "'/>", place + 1;
	else
		out[place + 1], out[place + 2], out[place + 3] = "'><body>", escape(cut(body, body_max)), "</body></message>";
		place = place + 3;
	end
	local bytes = 13; -- a ts is a number
	for i = first + 1, place do
		if i ~= first + 10 then bytes = bytes + #out[i]; end
	end
	if bytes <= stanza_max then return place, bytes; end
	return write_message(out, first, message, cut(body, floor(#body / 2))); -- each byte had to be escaped
end

local function give_message(message, body)
	local others = read[message.to];
	if others and others[message.with] then
		others[message.with], read_count = nil, read_count - 1;
		if not next(others) then read[message.to] = nil; end
	end
	local last, bytes = write_message(batch, pieces, message, body);
	if batch_bytes + bytes > stanza_max then
		flush();
		last, bytes = write_message(batch, pieces, message, body);
	end
	added(last, bytes);
end

-- Messages: groups ----------------------------------------------------------------------------------------------------

local function has_word(text, word)
	text, word = text:lower(), word:lower();
	local from, to = text:find(word, 1, true);
	while from do
		local before, after = text:sub(from - 1, from - 1), text:sub(to + 1, to + 1);
		if not (word:find("^%w") and before:find("^%w")) and not (word:find("%w$") and after:find("^%w")) then return true; end
		from, to = text:find(word, to + 1, true);
	end
	return false;
end

local function from_hex(hex) return string.char(tonumber(hex, 16)); end

local function is_mention(stanza, account, session, room, body)
	local nicks = { [notes(session).nicks[room] or 0] = true };
	for _, other in pairs(bare_sessions[account] and bare_sessions[account].sessions or {}) do
		nicks[notes(other).nicks[room] or 0] = true;
	end
	for reference in stanza:childtags("reference", "urn:xmpp:reference:0") do -- XEP-0372
		local uri = reference.attr.type == "mention" and (reference.attr.uri or ""):gsub("^xmpp:", ""):gsub("%%(%x%x)", from_hex);
		if uri == account or uri and bare(uri) == room and nicks[jid.resource(uri) or ""] then return true; end
	end
	for nick in pairs(nicks) do
		if nick ~= 0 and has_word(body, nick) then return true; end
	end
	return false;
end

-- Messages: reporting them --------------------------------------------------------------------------------------------

-- The last one: mod_mam adds its own behind what a sender made up (0.12.3 leaves that in where it archives the message).
local function stanza_id(stanza, by)
	local id;
	for tag in stanza:childtags("stanza-id", "urn:xmpp:sid:0") do
		if tag.attr.by == by then id = tag.attr.id; end
	end
	return id;
end

-- A room sends one stanza to every joined resource of the account, and a sender may do the same: one event. The same
-- words to the same JID again are a new message.
local function is_copy(to, message, body)
	local key = sha1(concat({ message.to, message.from, message[1] or "", message.class, message[3] or "", body }, "\0"));
	local at, seen = time.monotonic(), copies:get(key);
	if seen and at - seen.at <= copy_window and seen.count < copies_max and not seen[to] then
		seen[to], seen.count = true, seen.count + 1;
		return true;
	end
	copies:set(key, { at = at, count = 1, [to] = true });
	return false;
end

-- Fills in the message event for this account and returns its body, or nil if the account is not to hear of it. `session`
-- is the one the stanza is addressed to, if any.
local function read_message(message, stanza, account, session)
	local class, body, call = classify(stanza);
	if not class then return nil; end
	local attr = stanza.attr;
	local from = attr.from or host;
	local with = bare(from);
	if with == account then return nil; end
	message.to, message.from, message.with, message.class = account, from, with, class;
	message.kind = types[attr.type] or "normal"; -- RFC 6121 section 5.2.2
	message[1], message[2], message[3], message[4], message[5] = attr.id, nil, call, nil, nil;
	message.mention, message.unacked = nil, nil;
	if message.kind == "groupchat" then
		if not session then return nil; end -- goes back as an error and the room removes the occupant
		local nick = jid.resource(from);
		if nick and notes(session).nicks[with] == nick then return nil; end -- its own words
		message[2], message[4], message[5] = stanza_id(stanza, with), with, nick;
		message.mention = is_mention(stanza, account, session, with, body);
	elseif is_loaded(host, "mam") then -- else nobody removes what others put there in our name
		message[2] = stanza_id(stanza, account);
	end
	return body;
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
			local body = read_message(lost, message or stanza, account, session);
			if body then
				lost.unacked, lost.ts, lost.body = true, milliseconds(delay and datetime.parse(delay.attr.stamp)), body;
				messages[#messages + 1] = lost;
			end
		end
	end
	return messages;
end

local function give_all(messages)
	for _, message in ipairs(messages) do give_message(message, message.body); end
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
	flush();
	for session in pairs(sessions) do expect_answer(session); end
end

-- Hooks ---------------------------------------------------------------------------------------------------------------

local arrived = {}; -- one for all: it is written down before the next comes

local function message_arrived(event)
	local stanza, to = event.stanza, event.stanza.attr.to;
	if not to then return; end -- to itself
	local account = bare(to);
	local body = read_message(arrived, stanza, account, full_sessions[to]);
	if not body then return; end
	local user = bare_sessions[account];
	if not user and not user_exists(jid.node(account), host) then return; end
	if to ~= account and is_copy(to, arrived, body) then return; end
	arrived.ts = milliseconds();
	give_message(arrived, body);
	if not user or ack_timeout <= 0 then return; end
	for _, session in pairs(user.sessions) do
		if session.smacks and state_of(session) == "inactive" then expecting[session] = true; end
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

local function message_sent(event)
	local origin, stanza = event.origin, event.stanza;
	if origin.type ~= "c2s" or origin.host ~= host or stanza.attr.type == "error" then return; end
	local account = origin.username .. "@" .. host;
	local with = bare(stanza.attr.to) or account;
	local displayed = false;
	for _, tag in ipairs(stanza.tags) do
		local meaning = meaning_of(tag);
		if meaning == "taken" and tag.attr.id then
			give_message({
				to = account, from = with, with = with, kind = types[stanza.attr.type] or "normal", class = "call-ended";
				stanza.attr.id, nil, tag.attr.id, ts = milliseconds();
			}, "");
			return;
		end
		displayed = displayed or meaning == "displayed";
	end
	if with == account or read[account] and read[account][with] then return; end
	local class = classify(stanza);
	if displayed or class == "text" or class == "encrypted" then give_displayed(account, with); end
end

-- XEP-0490: the client publishes what it has displayed to its own account; the item's id is the conversation.
local function item_published(event)
	local origin, stanza = event.origin, event.stanza;
	if origin.type ~= "c2s" or stanza.attr.type ~= "set" or not event.to_self then return; end
	local publish = stanza.tags[1]:get_child("publish");
	if not publish or publish.attr.node ~= "urn:xmpp:mds:displayed:0" then return; end
	for item in publish:childtags("item") do
		local with = bare(jid.prep(item.attr.id));
		if with then give_displayed(origin.username .. "@" .. host, with); end
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
	if session and x:get_child_with_attr("status", nil, "code", "110") then
		local room, available = bare(stanza.attr.from), stanza.attr.type == nil;
		notes(session).nicks[room] = available and asked_to_enter(session, room) and jid.resource(stanza.attr.from) or nil;
	end
end

local function csi_changed(state)
	return function (event)
		notes(event.origin).csi = state;
		report(event.origin);
	end
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

local function user_deleted(event)
	if event.host ~= host then return; end
	give(element("account-removed", { jid = event.username .. "@" .. host, ts = milliseconds() }), true);
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

local function log_error(err) module:log("error", "%s", debug.traceback(err, 2)); end

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
hook("csi-client-active", csi_changed("active"));
hook("csi-client-inactive", csi_changed("inactive"));
hook("smacks-hibernation-start", hibernation_started, 100);
hook("smacks-hibernation-end", resumed, 100);
hook("smacks-ack-delayed", function (event) overdue(event.origin); end); -- also an active client, after the server's own limit
hook("pre-resource-unbind", about_to_end, 100);
hook("resource-unbind", ended, 100);
-- mod_presence ends the event before it could tell the outcome: look at the session when it is done.
module:wrap_event("presence/bare", function (handlers, name, event)
	local result, origin = handlers(name, event), event.origin;
	if origin and origin.type == "c2s" and origin.host == host then xpcall(report, log_error, origin); end
	return result;
end);
hook("presence/full", occupant_presence, 1);

-- After mod_blocklist (100), mod_mam (0, which adds the stanza-id) and mod_carbons (-0.5), just before mod_message (-1).
hook("message/bare", message_arrived, -0.9);
hook("message/full", message_arrived, -0.9);
hook("pre-message/bare", message_sent, -2);
hook("pre-message/full", message_sent, -2);
hook("pre-message/host", message_sent, -2);
hook("iq/bare/http://jabber.org/protocol/pubsub:pubsub", item_published, 1);
hook_global("user-deleted", user_deleted);
hook_global("server-stopping", server_stopping);

hook("iq-get/host/" .. xmlns_bridge .. ":snapshot", snapshot_requested);
hook("message/host", acknowledged, 1);

module:add_timer(heartbeat, function ()
	xpcall(function () enforce_bound(); beat(); end, log_error);
	return heartbeat;
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
	};
end

function module.restore(saved)
	if not saved.epoch then return; end
	epoch, seq, held, held_first, held_last, held_count = saved.epoch, saved.seq, saved.held, saved.first, saved.last, saved.count;
	held_bytes = saved.bytes or 0; -- a version before this did not count them
	dropped, dropped_seq, reported = saved.dropped, saved.dropped_seq, saved.reported;
	link, in_flight, sizes, acked = saved.link, saved.in_flight, saved.sizes, saved.acked;
	each_session(function (session)
		local own = notes(session);
		if own.overdue then filters.add_filter(session, "bytes/in", listen, 1000); end
		if ack_timeout > 0 then expect_answer(session); end -- who was to answer when the code before this went
	end);
end

function module.unload()
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
