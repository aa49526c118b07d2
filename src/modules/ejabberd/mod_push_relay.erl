%%% Reports to a PushRelay component what every session of this virtual host is doing and which messages its accounts get,
%%% so that the relay can alert the phones that nobody looks at.
%%%
%%% The wire is urn:pushrelay:bridge:1 over the component's own XEP-0114 link: states of sessions, messages, what the
%%% account has read. Events are numbered, kept until the relay has stored them, and sent again when it asks.
%%%
%%% Hooks run in the processes of clients and senders. They read the stanza, add an entry to the inbox of this host and
%%% let the stanza go on. The process of the host takes many entries at once and writes the events; it owns numbers,
%%% queue, link and what was reported of each session. What needs a database or a room to answer runs in a third process.
%%%
%%% ejabberd 23.01 to 26.07. Options and limits: README.md.
-module(mod_push_relay).
-behaviour(gen_mod).
-behaviour(gen_server).

%% gen_mod
-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).
%% hooks in a client's process
-export([session_opened/1, session_copied/2, session_resumed/1, session_pending/1, session_terminated/2,
         self_presence/1, csi_activity/2, packet_sent_to_client/3, heard_from_client/3, client_cast/2,
         user_sends/1]).
%% hooks elsewhere
-export([packet_arrives/1, subscription_asked/2, host_receives/1, component_sends/1, user_removed/2, account_changed/2,
         process_iq/1, decode_iq_subel/1]).
%% the process that looks things up
-export([lookups/2]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("translate.hrl").
-include("mod_roster.hrl").
-include("pubsub.hrl").

-define(NS_BRIDGE, <<"urn:pushrelay:bridge:1">>).
-define(MODULE_VERSION, <<"1.0.0">>).
-define(BODY_MAX, 8192).      % bytes
-define(BODIES_MAX, 4).       % languages of a message
-define(LANGUAGE_MAX, 64).   % bytes: a longer xml:lang counts as none
-define(ADDRESSES_MAX, 8).   % addresses of a file that are taken out of the text
-define(RANGES_MAX, 16).      % fallback ranges of a message: more are ignored
-define(ID_MAX, 1024).        % bytes: a longer id cannot identify anything and is left out
-define(NAME_MAX, 256).       % bytes of a display name and of the name of a file
-define(STANZA_MAX, 60000).   % bytes: the wire allows 64 KiB with its wrapping
-define(PAGE_MAX, 100).       % children of a stanza, as the wire has it
-define(GATHER_TIME, 80).     % ms between two stanzas at least: events in between share one; after a pause none waits
-define(IN_FLIGHT_MAX, 16#1000000).  % bytes sent and not acknowledged before the relay counts as stuck
-define(COPY_WINDOW, 10000).  % ms in which the same message without an id to another resource is a copy, at least
-define(SEEN_MAX, 1000).      % messages without an id remembered for that
-define(COPIES_MAX, 100).     % resources of an account that it is a copy to: strangers invent them
-define(REPEAT_TIME, 600).    % s in which a message with the same id and text is the same message
-define(INVITE_TIME, 60).     % s in which an invitation to the same room is the same invitation
-define(REPEATS_MAX, 50000).  % messages with an id remembered for that
-define(HELD_MAX, 16#4000000).  % bytes kept until the relay acknowledges them: for long messages
-define(INBOX_MAX, 50000).    % messages in the inbox: more are lost, and counted
-define(LATE_MAX, 100).       % numbers whose entry is looked for again
-define(HEAP_MIN, 50000).     % words: the entries of one time need no collection of garbage
-define(KNOWN_MAX, 20000).    % conversations remembered as read, and accounts as existing
-define(NAMES_MAX, 20000).    % answers of the lookups that are kept
-define(NAME_TIME, 300).      % s for which an answer is kept
-define(LOOKUP_WAIT, 300).    % ms for which all messages taken from the inbox at once may wait for lookups together
-define(LOOKUPS_MAX, 1000).   % lookups under way: no more are asked for
-define(BAN_TIME, 60).        % s after which an account's ban is looked up again with its next message
-define(BAN_CHECK, 5000).     % ms between two looks whether a ban is over
-define(BANS_AT_ONCE, 50).    % suspended accounts that are looked up at once
-define(ROOMS_MAX, 1000).     % rooms of a session, and JIDs to which it sent presence
-define(LAST_PLACES_MAX, 5000).  % nicknames that accounts had in rooms, twice
-define(HISTORY_TIME, 60).    % s after which the history of a room is over, without its subject too
-define(RINGING_MAX, 1000).   % calls by IQ that are remembered until they end
-define(BLOCKED_MAX, 100).    % JIDs of one request to block
-define(WORDS_MAX, 200).      % places in a text at which a nick is looked for
-define(HELLO_DELAY, 300).    % ms for the sessions of a running server to report themselves

-record(session, {attr :: attrs(), since :: binary(), pid :: pid(), ref :: reference(), user :: {binary(), binary()}}).

%% What a room knows of an occupant of ours.
-record(occupant, {nick = none :: none | binary(), id = <<>> :: binary(),
                   history = over :: over | integer()}).  % the time in s at which it counts as over

-record(state, {host :: binary(), component :: binary(),
                heartbeat :: pos_integer(), queue_size :: pos_integer(), queue_time :: pos_integer(),  % s, events, s
                epoch :: binary(), seq = 0 :: non_neg_integer(),                   % the last number given out
                held = queue:new() :: queue:queue(), held_count = 0 :: non_neg_integer(),  % {Seq, At, Count, Xml}; events
                held_bytes = 0 :: non_neg_integer(),
                batch = [] :: [{boolean(), xmlel()}], batch_count = 0 :: non_neg_integer(),  % to be sent: newest first
                batch_bytes = 0 :: non_neg_integer(), batch_max = 1 :: pos_integer(),
                emptied :: undefined | integer(),                                  % when the inbox was, ms
                dropped = 0 :: non_neg_integer(), dropped_seq = 0 :: non_neg_integer(),
                link :: undefined | {pid(), reference()},
                in_flight = 0 :: non_neg_integer(), sent = queue:new() :: queue:queue(),     % bytes; {Seq, Bytes}
                sessions = #{} :: #{binary() => #session{}}, refs = #{} :: #{reference() => binary()},
                hibernating = #{} :: #{{binary(), binary()} => true},              % resources of accounts
                rooms = #{} :: #{binary() => #{binary() => #{binary() => #occupant{}}}},  % user => resource => room
                places = #{} :: #{{binary(), binary()} => #occupant{}}, places_before = #{} :: map(),  % {user, room}: the last there
                directed = #{} :: #{binary() => #{binary() => #{jid:ljid() => true}}},    % user => resource => to
                ringing = #{} :: #{{binary(), binary()} => jid:jid()},             % {user, session id}: who calls by IQ
                seen = #{} :: map(), seen_before = #{} :: map(),
                repeats :: ets:tid(), repeats_before :: ets:tid(), repeats_since :: integer(),  % s
                lowered = {<<>>, <<>>} :: {binary(), binary()},                    % the last text, and in lower case
                suspended = #{} :: #{binary() => true}, suspended_turn = [] :: [binary()],
                watches_bans = false :: boolean(),
                node = [] :: attrs(),                                              % the attribute, where there are others
                late = [] :: [pos_integer()],   % entries that were not in the inbox yet, newest first
                known :: ets:tid(),   % {User, With}: nothing came since the account read it; User: the account exists
                lookups :: pid(), answers :: ets:tid(), wait = 0 :: non_neg_integer(),  % {Key, Answer, At}; ms left
                shared :: shared()}).

%% What the processes of clients and senders share with that of the host: the inbox, and counters, side by side in
%% memory: the number of the last entry, the last one read, messages for which the inbox had no place, whether somebody
%% has woken the process since the inbox was emptied, and whether the relay is stuck.
-record(shared, {pid :: pid(), inbox :: ets:tid(), counters :: atomics:atomics_ref()}).
-define(WRITTEN, 1).
-define(READ, 2).
-define(LOST, 3).
-define(WOKEN, 4).
-define(STUCK, 5).
-type shared() :: #shared{}.
-type attrs() :: [{binary(), binary()}].

%% What a message says to the account that gets it.
-record(found, {event = message :: message | retraction,
                class = text :: text | encrypted | call | 'call-ended' | invite | attention,
                attrs = [] :: attrs(),                       % those that depend on nothing but the stanza
                bodies = [] :: [{binary(), binary()}],       % language and text; the first is the default
                words = <<>> :: binary(),                    % in which a nick is looked for
                points = [] :: [point()],                    % what the elements say of who is meant
                occupant = <<>> :: binary(),                 % XEP-0421
                nick :: undefined | binary(),                % where it is not the resource
                author :: undefined | jid:jid(),             % of a MIX message
                room :: undefined | binary(),                % to which it invites
                inviter :: undefined | jid:jid(),
                migrated = <<>> :: binary()}).               % the call with which another device of the peer goes on
-type whom() :: everybody | {jid, binary()} | {reply, binary()} | {occupant, binary()}.
-type point() :: whom() | {said, whom()} | {quiet, whom()}.  % the last two by XEP-0513

%%% gen_mod ------------------------------------------------------------------------------------------------------------

start(Host, Opts) -> gen_mod:start_child(?MODULE, Host, Opts).

stop(Host) -> gen_mod:stop_child(?MODULE, Host).

reload(Host, NewOpts, _OldOpts) -> gen_server:cast(proc(Host), {reload, NewOpts}).

depends(_Host, _Opts) -> [{mod_stream_mgmt, soft}, {mod_client_state, soft}].

mod_opt_type(component) -> econf:domain();
mod_opt_type(ack_timeout) -> econf:non_neg_int();
mod_opt_type(_) -> econf:pos_int().

mod_options(_Host) -> [component, {heartbeat, 30}, {queue_size, 10000}, {queue_time, 600}, {ack_timeout, 5}].

mod_doc() ->
    #{desc => ?T("Reports sessions and messages to a PushRelay component, which alerts phones that nobody looks at."),
      opts =>
          [{component, #{value => ?T("Domain"), desc => ?T("The relay's component. Required.")}},
           {heartbeat, #{value => ?T("Seconds"), desc => ?T("Time between heartbeats. The default is 30.")}},
           {queue_size, #{value => ?T("Number"), desc => ?T("Events kept until the relay acknowledges them. "
                                                            "The default is 10000.")}},
           {queue_time, #{value => ?T("Seconds"), desc => ?T("How long they are kept. The default is 600.")}},
           {ack_timeout, #{value => ?T("Seconds"), desc => ?T("Without an answer to an XEP-0198 request for so long an "
                                                              "inactive session counts as hibernating; 0: never. "
                                                              "The default is 5.")}}]}.

proc(Host) -> gen_mod:get_module_proc(Host, ?MODULE).

option(Host, Name) -> gen_mod:get_module_opt(Host, ?MODULE, Name).

hooks() ->
    [{c2s_session_opened, session_opened, 90},
     {c2s_copy_session, session_copied, 90},
     {c2s_session_resumed, session_resumed, 90},
     {c2s_session_pending, session_pending, 90},
     {c2s_terminated, session_terminated, 30},        % before mod_stream_mgmt (50) gives up its queue
     {c2s_self_presence, self_presence, 90},
     {csi_activity, csi_activity, 90},
     {c2s_handle_send, packet_sent_to_client, 90},    % after mod_stream_mgmt (50) has put it into its queue
     {c2s_handle_recv, heard_from_client, 10},
     {c2s_handle_cast, client_cast, 10},              % not info: that is every stanza to the client
     {user_send_packet, user_sends, 95},
     {sm_receive_packet, packet_arrives, 95},         % after mod_mam (50) has chosen the archive id
     {roster_in_subscription, subscription_asked, 90},  % after mod_roster (50) has decided whether it is new
     {local_send_to_resource_hook, host_receives, 10},
     {remove_user, user_removed, 110},                % after ejabberd_sm (100) has sent its sessions away
     {set_password, account_changed, 50},             % at a ban of ejabberd 25.07 and later
     {sm_kick_user, account_changed, 50}].            % at a ban of later versions

%% Hooks of the whole server: each host adds them, the first time counts, and the last host that stops removes them.
global_hooks() ->
    [{component_send_packet, component_sends, 10}].  % before mod_privilege (50)

%%% In a client's process: its sessions --------------------------------------------------------------------------------

%% The client's state has a map of ours: id, csi, overdue (the client does not answer), watch (the timer for that),
%% reported (the last number of its XEP-0198 queue that was reported as unacknowledged).
notes(Csi) -> #{id => new_id(), csi => Csi, overdue => false, watch => none, reported => 0}.

%% 72 random bits: never used twice, whatever restarts.
new_id() -> base64url(crypto:strong_rand_bytes(9)).

session_opened(State) -> report(State#{push_relay => notes(active)}).

%% The session is the same though another process goes on with it.
session_copied(State, #{push_relay := Own}) -> State#{push_relay => Own#{watch => none}};
session_copied(State, _) -> State.

%% A resumed stream starts active (XEP-0352 section 5).
session_resumed(#{push_relay := Own} = State) -> report(State#{push_relay => Own#{csi => active, overdue => false}});
session_resumed(State) -> session_opened(State).

session_pending(#{push_relay := _} = State) -> report_unacked(report(State));
session_pending(State) -> State.

session_terminated(#{push_relay := #{id := Id}, mgmt_state := resumed, lserver := Host} = State, _Reason) ->
    add(Host, {moved, Id}),
    State;
session_terminated(#{push_relay := #{id := Id}, lserver := Host, jid := JID} = State, Reason) ->
    %% After hibernation everything was reported.
    {Messages, State1} = case State of
                             #{mgmt_state := active} -> unacked(State);
                             _ -> {[], State}
                         end,
    add(Host, {closed, Id, JID, Messages}),
    case maps:get(stop_reason, State, Reason) of
        {stream, {out, _}} -> add(Host, {check_ban, JID#jid.luser});  % the server ended it: at a ban it does
        _ -> ok
    end,
    State1;
session_terminated(State, _Reason) -> State.

%% ejabberd changes its state only after this hook.
self_presence({#presence{type = unavailable}, State} = Acc) ->
    report(maps:remove(pres_last, State)),
    Acc;
self_presence({#presence{} = Presence, State} = Acc) ->
    report(State#{pres_last => Presence}),
    Acc.

csi_activity(#{push_relay := Own} = State, Csi) -> report(State#{push_relay => Own#{csi => Csi}});
csi_activity(State, _Csi) -> State.

report(#{push_relay := #{id := Id}, jid := JID, lserver := Host} = State) ->
    Presence = maps:get(pres_last, State, none),
    add(Host, {session, Id, self(), user(JID),
               [{<<"jid">>, encode(JID)}, {<<"sid">>, Id}, {<<"state">>, state_of(State)},
                {<<"available">>, atom_to_binary(is_record(Presence, presence), utf8)},
                {<<"priority">>, priority(Presence)} | show(Presence)]}),
    State;
report(State) -> State.

state_of(#{mgmt_state := Mgmt}) when Mgmt == pending; Mgmt == timeout -> <<"hibernating">>;
state_of(#{push_relay := #{overdue := true}}) -> <<"hibernating">>;
state_of(#{push_relay := #{csi := Csi}}) -> atom_to_binary(Csi, utf8).

priority(#presence{priority = P}) when is_integer(P) -> integer_to_binary(P);
priority(_) -> <<"0">>.

show(#presence{show = Show}) when Show /= undefined -> [{<<"show">>, atom_to_binary(Show, utf8)}];
show(_) -> [].

report_unacked(#{lserver := Host, jid := JID} = State) ->
    {Messages, State1} = unacked(State),
    add(Host, {unacked, JID, Messages}),
    State1.

%% What the client has not acknowledged, each message once in the life of its queue.
unacked(#{push_relay := #{reported := Reported} = Own, mgmt_queue := Queue, jid := JID} = State) ->
    Waiting = [Item || {Number, _, #message{}} = Item <- p1_queue:to_list(Queue), Number > Reported],
    Messages = [{Inner#message.type, Inner#message.from,
                 Found#found{attrs = [{<<"unacked">>, <<"true">>}, {<<"ts">>, milliseconds(Time)} | Attrs]}}
                || {_, Time, Packet} <- Waiting, Inner <- [unsubscribe(uncarbon(Packet))],
                   #found{attrs = Attrs} = Found <- [found(Inner, JID)]],
    {Messages, State#{push_relay => Own#{reported => lists:max([Reported | [Number || {Number, _, _} <- Waiting]])}}};
unacked(State) -> {[], State}.

%% A copy this device was to show: the event is the message itself.
uncarbon(#message{} = Message) ->
    case xmpp:get_subtag(Message, #carbons_received{forwarded = #forwarded{}}) of
        #carbons_received{forwarded = #forwarded{sub_els = [El]}} ->
            case xmpp:decode(to_xml(El), ?NS_CLIENT, [ignore_els]) of
                #message{} = Original -> Original;
                _ -> Message
            end;
        _ -> Message
    end.

%%% In a client's process: does it answer? -----------------------------------------------------------------------------

%% mod_stream_mgmt has just asked for an acknowledgement (its own limit is a minute): an inactive client has less time.
packet_sent_to_client(#{push_relay := #{watch := none, csi := inactive, overdue := false} = Own, lserver := Host,
                        mgmt_state := active, mgmt_ack_timer := _} = State, #message{}, ok) ->
    case option(Host, ack_timeout) of
        0 -> State;
        Seconds ->
            Watch = make_ref(),
            erlang:send_after(Seconds * 1000, self(), {'$gen_cast', {?MODULE, {silent, Watch}}}),
            State#{push_relay => Own#{watch => Watch}}
    end;
packet_sent_to_client(State, _Packet, _Result) -> State.

heard_from_client(#{push_relay := #{watch := none, overdue := false}} = State, _El, _Packet) -> State;
heard_from_client(#{push_relay := Own} = State, _El, _Packet) ->
    report(State#{push_relay => Own#{watch => none, overdue => false}});
heard_from_client(State, _El, _Packet) -> State.

client_cast(#{push_relay := #{watch := Watch} = Own} = State, {?MODULE, {silent, Watch}}) ->
    State1 = State#{push_relay => Own#{watch => none}},
    case State1 of
        #{mgmt_state := active, push_relay := #{csi := inactive} = Own1} ->
            {stop, report_unacked(report(State1#{push_relay => Own1#{overdue => true}}))};
        _ -> {stop, State1}
    end;
%% The module was loaded while this client was connected.
client_cast(#{jid := JID, sid := _} = State, {?MODULE, report}) ->
    State1 = case State of
                 #{push_relay := #{csi := Csi} = Own} ->  % of an earlier start of the module
                     State#{push_relay => Own#{csi => maps:get(csi_state, State, Csi), overdue => false}};
                 _ -> State#{push_relay => notes(maps:get(csi_state, State, active))}
             end,
    [begin
         add(JID#jid.lserver, {directed, user(JID), To, true}),
         [add(JID#jid.lserver, Entry) || Nick /= <<>>, Room <- [encode({U, S, <<>>})],  % one that it is in
                                         Entry <- [{enters, user(JID), Room}, {occupant, user(JID), Room, #occupant{nick = Nick}},
                                                   {history_over, user(JID), Room}]]
     end || {U, S, Nick} = To <- sets_to_list(maps:get(pres_a, State, []))],
    {stop, report(State1)};
client_cast(State, {?MODULE, _}) -> {stop, State};
client_cast(State, _Msg) -> State.

user(#jid{luser = User, lresource = Resource}) -> {User, Resource}.

sets_to_list(Set) -> try gb_sets:to_list(Set) catch _:_ -> [] end.

%%% In a client's process: what it reads and writes --------------------------------------------------------------------

user_sends({#message{type = error}, _State} = Acc) -> Acc;
user_sends({#message{to = To, sub_els = Els} = Message, #{jid := JID}} = Acc) ->
    Meanings = meanings(Els),
    case is_plain(Meanings) andalso (Message#message.body == [] orelse is_short(Message)) of
        true when Message#message.body == []; To#jid.lserver == JID#jid.lserver, To#jid.luser /= <<>> ->
            ok;  % says nothing, or is reported when it arrives
        _ -> user_sends(Message, Meanings, JID)
    end,
    Acc;
user_sends({#iq{type = set, to = To, sub_els = [El]}, #{jid := JID}} = Acc) ->
    case xmpp:get_ns(El) of
        <<"urn:xmpp:jingle:1">> when To /= undefined -> answers_call(jingle(El), JID, To);
        Ns when To == undefined; To#jid.lresource == <<>>, To#jid.luser == JID#jid.luser, To#jid.lserver == JID#jid.lserver ->
            changes_account(Ns, El, JID);
        _ -> ok
    end,
    Acc;
user_sends({#presence{type = Type, to = #jid{luser = User} = To}, #{jid := #jid{lserver = Host} = JID}} = Acc)
  when User /= <<>>, Type == available; User /= <<>>, Type == unavailable ->
    gen_mod:is_loaded(Host, mod_block_strangers) andalso add(Host, {directed, user(JID), jid:tolower(To), Type == available}),
    Type == available andalso To#jid.lresource /= <<>> andalso add(Host, {enters, user(JID), bare(To)}),
    Acc;
user_sends({#presence{type = Type, to = #jid{} = To}, #{jid := #jid{lserver = Host} = JID}} = Acc)
  when Type == subscribe; Type == subscribed ->
    add(Host, {forget_name, JID#jid.luser, bare(To)}),  % from now on the item is the account's own
    Acc;
user_sends(Acc) -> Acc.

user_sends(#message{to = undefined} = Message, Meanings, JID) -> user_sends(Message#message{to = JID}, Meanings, JID);
user_sends(#message{to = To, type = Type, id = Id} = Message, Meanings, #jid{luser = User, lserver = Host} = JID) ->
    case taken_call(Meanings, Id) of
        {Call, Ended} -> add(Host, {taken, JID, To, Call, Ended, Type, Id});
        none when To#jid.luser == User, To#jid.lserver == Host -> ok;
        none ->
            Found = case Type of
                        headline -> none;
                        _ -> read(Message, Meanings)
                    end,
            Type == groupchat andalso is_record(Found, found) andalso wrote(JID, To, Found),
            reads(Found, Meanings) andalso add(Host, {reads, JID, To, milliseconds()})
    end.

%% Its own words come back from the room: with one of these ids, and with the same text.
wrote(JID, Room, #found{attrs = Attrs, bodies = Bodies}) ->
    [add(JID#jid.lserver, {wrote, bare(JID), bare(Room), Id, erlang:phash2(Bodies)})
     || {Name, Id} <- Attrs, Name == <<"id">> orelse Name == <<"origin-id">>].

%% A device of the account took the call or refused it: the others need not ring.
taken_call(#{call := Calls}, Id) ->
    case [{CallId, Ended} || {Kind, El} <- Calls, Ended <- [taken(Kind, El)], Ended /= none,
                             CallId <- [call_id(Kind, El, Id)], CallId /= <<>>] of
        [Taken | _] -> Taken;
        [] -> none
    end;
taken_call(_, _) -> none.

taken(_, #xmlel{name = Name}) when Name == <<"accept">>; Name == <<"proceed">> -> <<"answered">>;
taken(_, #xmlel{name = <<"reject">>} = El) ->
    case has_child(<<"tie-break">>, El) of
        true -> <<"answered">>;  % by the account's own call
        false -> <<"rejected">>
    end;
taken(_, _) -> none.

reads(#found{event = message, class = Class}, _) when Class == text; Class == encrypted -> true;
reads(_, Meanings) -> is_map_key(displayed, Meanings) orelse is_map_key(reactions, Meanings).

%% XEP-0490: the client publishes what it has displayed to its own account; the item's id is the conversation. A contact
%% or a bookmark may get another name by a request of the client.
changes_account(?NS_PUBSUB, El, #jid{lserver = Host} = JID) ->
    Publish = fxml:get_subtag(to_xml(El), <<"publish">>),
    case Publish /= false andalso attribute(<<"node">>, Publish) of
        <<"urn:xmpp:mds:displayed:0">> ->
            [add(Host, {reads, JID, With, milliseconds()}) || With <- item_jids(<<"id">>, Publish)], ok;
        <<"urn:xmpp:bookmarks:1">> ->
            [add(Host, {forget_name, JID#jid.luser, bare(Room)}) || Room <- item_jids(<<"id">>, Publish)], ok;
        _ -> ok
    end;
changes_account(<<"jabber:iq:roster">>, El, #jid{lserver = Host} = JID) ->
    [add(Host, {forget_name, JID#jid.luser, bare(Contact)}) || Contact <- item_jids(<<"jid">>, to_xml(El))], ok;
changes_account(<<"urn:xmpp:blocking">>, El, #jid{lserver = Host} = JID) ->
    xmpp:get_name(El) == <<"block">> andalso gen_mod:is_loaded(Host, mod_blocking)
        andalso [add(Host, {blocked, bare(JID), encode(Blocked)})
                 || Blocked <- lists:sublist(item_jids(<<"jid">>, to_xml(El)), ?BLOCKED_MAX)],
    ok;
changes_account(_, _, _) -> ok.

item_jids(Attribute, El) ->
    [JID || Item <- fxml:get_subtags(El, <<"item">>), #jid{} = JID <- [decode_jid(attribute(Attribute, Item))]].

%% A session-initiate that was answered or refused.
answers_call({<<"session-accept">>, Sid, _}, JID, To) -> add(JID#jid.lserver, {rings_no_more, JID, To, Sid, <<"answered">>});
answers_call({<<"session-terminate">>, Sid, _}, JID, To) -> add(JID#jid.lserver, {rings_no_more, JID, To, Sid, <<"rejected">>});
answers_call(_, _, _) -> ok.

%% XEP-0166: {Action, Sid, Media}.
jingle(El) ->
    #xmlel{children = Contents} = Jingle = to_xml(El),
    {attribute(<<"action">>, Jingle), attribute(<<"sid">>, Jingle),
     media([Content || #xmlel{name = <<"content">>} = Content <- Contents])}.

%%% In a sender's process: what arrives --------------------------------------------------------------------------------

%% Marked, because ejabberd routes a message again when a session with a queue ends or is late for its resumption.
packet_arrives(#message{meta = #{push_relay := _}} = Message) -> Message;
packet_arrives(#message{meta = #{from_offline := true}} = Message) -> Message;  % reported before it was stored
packet_arrives(#message{type = error} = Message) -> Message;
packet_arrives(#message{to = To, from = From, type = groupchat, body = [], subject = [_ | _]} = Message) ->
    %% The subject, whatever stands beside it: some versions add who set it and when.
    To#jid.lresource /= <<>> andalso is_there(Message, To) andalso add(To#jid.lserver, {history_over, user(To), bare(From)}),
    Message;
packet_arrives(#message{to = To, body = Body, subject = Subject, sub_els = Els} = Message) ->
    Meanings = meanings(Els),
    case is_plain(Meanings) of
        true when Body == [], Subject == [] -> Message;
        true ->
            case is_short(Message) of
                true ->
                    %% Read by the process of the host: the entry is smaller than what is read from it.
                    add_message(To#jid.lserver, plain_entry(Message, Meanings)),
                    xmpp:put_meta(Message, push_relay, true);
                false -> arrives(Message, Meanings)
            end;
        false -> arrives(Message, Meanings)
    end;
packet_arrives(#presence{from = From, to = #jid{lresource = Resource} = To, type = Type, sub_els = Els} = Presence)
  when Resource /= <<>>, Type == available orelse Type == unavailable ->
    %% Status 110 is the room's word for "this is you" (XEP-0045 section 7.2.2). In the process of the room, as its
    %% messages are: so the nickname is known before the first of them.
    case xmpp:has_subtag(Presence, #muc_user{}) andalso xmpp:get_subtag(Presence, #muc_user{}) of
        #muc_user{status_codes = Codes} ->
            Occupant = case Type of
                           available -> #occupant{nick = From#jid.lresource, id = occupant_id(Els)};
                           unavailable -> none
                       end,
            lists:member(110, Codes) andalso not lists:member(303, Codes) andalso  % 303: another nickname follows
                add(To#jid.lserver, {occupant, user(To), bare(From), Occupant});
        _ -> ok
    end,
    Presence;
packet_arrives(#iq{type = set, from = From, to = #jid{lresource = Resource} = To, sub_els = [El]} = IQ) when Resource /= <<>> ->
    case xmpp:get_ns(El) == <<"urn:xmpp:jingle:1">> andalso jingle(El) of
        {<<"session-initiate">>, Sid, Media} when Media /= none, Sid /= <<>>, byte_size(Sid) =< ?ID_MAX ->
            add_message(To#jid.lserver, {rings, erlang:system_time(millisecond), From, To, Sid, Media, IQ#iq{sub_els = []}});
        {<<"session-terminate">>, Sid, _} -> add(To#jid.lserver, {rings_no_more, To, From, Sid, <<"retracted">>});
        _ -> ok
    end,
    IQ;
packet_arrives(Stanza) -> Stanza.

arrives(#message{to = To} = Message, Meanings) ->
    {Inner, InnerMeanings} = case is_map_key(event, Meanings) andalso unsubscribe(Message) of
                                 false -> {Message, Meanings};
                                 Message -> {Message, Meanings};
                                 Unwrapped -> {Unwrapped, meanings(Unwrapped#message.sub_els)}
                             end,
    case found(Inner, InnerMeanings, To) of
        none -> Message;
        #found{} = Found ->
            is_there(Message, To)
                andalso add_message(To#jid.lserver,
                                    {arrived, erlang:system_time(millisecond), Message#message.from, To, Inner#message.from,
                                     Inner#message.type, is_empty(Message), Found}),
            xmpp:put_meta(Message, push_relay, true)
    end.

is_short(#message{type = Type, body = [#text{data = Text}], subject = []}) when Type /= groupchat, Type /= headline ->
    byte_size(Text) < 1000;
is_short(_) -> false.

is_empty(#message{body = Body, subject = Subject}) -> Body == [] andalso Subject == [].

%% As little as is needed: the entry is copied twice, and read by another core.
plain_entry(#message{from = From, to = To, type = Type, id = Id, lang = Lang, body = [Body], meta = Meta}, Meanings) ->
    #text{lang = Of, data = Text} = Body,
    {plain, erlang:system_time(millisecond), jid:tolower(From), jid:tolower(To), Type, Id, if Of == Lang -> <<>>; true -> Of end,
     Text, Meanings, maps:get(stanza_id, Meta, none), is_map_key(ip, Meta)}.

%% MUC/Sub: the room's message travels in an event of the room to the subscriber's account. A room of this server sends a
%% record, one of another server text.
unsubscribe(#message{type = headline} = Message) -> Message;
unsubscribe(#message{from = #jid{luser = Room, lserver = Service}, sub_els = Els} = Message) ->
    Inner = case misc:unwrap_mucsub_message(Message) of
                #message{} = Record -> Record;
                false -> hd([unsubscribe_text(El) || #xmlel{name = <<"event">>} = El <- Els] ++ [none])
            end,
    case Inner of
        #message{from = #jid{luser = Room, lserver = Service}} -> Inner#message{type = groupchat};
        _ -> Message
    end;
unsubscribe(Message) -> Message.

unsubscribe_text(Event) ->
    Items = child_of(<<"items">>, Event),
    case Items /= none andalso attribute(<<"node">>, Items) == ?NS_MUCSUB_NODES_MESSAGES andalso child_of(<<"item">>, Items) of
        #xmlel{} = Item ->
            case child_of(<<"message">>, Item) of
                #xmlel{} = El -> try xmpp:decode(El, ?NS_CLIENT, [ignore_els]) catch _:_ -> none end;
                none -> none
            end;
        _ -> none
    end.

%% A group message for a resource that is gone goes back as an error, and the room removes the occupant.
is_there(#message{type = groupchat}, #jid{luser = User, lserver = Server, lresource = Resource}) when Resource /= <<>> ->
    ejabberd_sm:get_session_pid(User, Server, Resource) /= none;
is_there(_, _) -> true.

%% A new request only: mod_roster says whether it is.
subscription_asked(true, #presence{type = subscribe, from = From, to = #jid{lserver = Host} = To}) ->
    add_message(Host, {subscription, erlang:system_time(millisecond), From, To}),
    true;
subscription_asked(Acc, _Presence) -> Acc.

%%% What a message says ------------------------------------------------------------------------------------------------

%% What the account of that JID is to hear, or none.
found(#message{sub_els = Els} = Message, JID) -> found(Message, meanings(Els), JID).

found(#message{from = #jid{luser = User, lserver = Server}}, _, #jid{luser = User, lserver = Server}) -> none;
found(#message{from = #jid{}, type = Type} = Message, Meanings, JID) when Type /= error ->
    case read(Message, Meanings) of
        #found{attrs = Attrs} = Found -> Found#found{attrs = optional(<<"stanza-id">>, stanza_id(Message, Meanings, JID)) ++ Attrs};
        none -> none
    end;
found(_, _, _) -> none.

stanza_id(#message{type = groupchat, from = From}, Meanings, _JID) ->
    case [attribute(<<"id">>, El) || El <- maps:get(stanza_id, Meanings, []), is_by(attribute(<<"by">>, El), From)] of
        [Id | _] -> Id;
        [] -> <<>>
    end;
stanza_id(Message, _Meanings, JID) ->
    case xmpp:get_meta(Message, stanza_id, none) of
        Id when is_integer(Id) ->
            case gen_mod:is_loaded(JID#jid.lserver, mod_mam) of
                true -> integer_to_binary(Id);
                false -> <<>>
            end;
        _ -> <<>>
    end.

%% Whether an address is that one or one of its resources.
is_by(Address, #jid{luser = User, lserver = Server}) ->
    case decode_jid(Address) of
        #jid{luser = User, lserver = Server} -> true;
        _ -> false
    end.

%% Each element is looked at once. A map from what it means to the elements with that meaning, in their order; those
%% without a meaning for an alert are not in it.
meanings(Els) -> meanings(lists:reverse(Els), #{}).

meanings([], Meanings) -> Meanings;
meanings([El | Rest], Meanings) ->
    case meaning(El) of
        none -> meanings(Rest, Meanings);
        {Meaning, Value} -> meanings(Rest, Meanings#{Meaning => [Value | maps:get(Meaning, Meanings, [])]})
    end.

%% Whether the message says no more than its body.
is_plain(Meanings) -> map_size(Meanings) == has(origin, Meanings) + has(hint, Meanings) + has(stanza_id, Meanings).

has(Meaning, Meanings) when is_map_key(Meaning, Meanings) -> 1;
has(_, _) -> 0.

meaning(#xmlel{name = Name, attrs = [{<<"xmlns">>, Ns} | _]} = El) -> meaning(Ns, Name, El);
meaning(#message{}) -> none;
meaning(El) -> meaning(xmpp:get_ns(El), xmpp:get_name(El), El).

meaning(<<"http://jabber.org/protocol/chatstates">>, _, _) -> none;
meaning(<<"urn:xmpp:receipts">>, _, _) -> none;
meaning(<<"urn:xmpp:sid:0">>, <<"origin-id">>, El) -> {origin, to_xml(El)};                    % XEP-0359
meaning(<<"urn:xmpp:sid:0">>, <<"stanza-id">>, El) -> {stanza_id, to_xml(El)};
meaning(<<"urn:xmpp:hints">>, Name, _) -> {hint, Name};                                       % XEP-0334
meaning(<<"urn:xmpp:delay">>, <<"delay">>, El) -> {delay, to_xml(El)};                         % XEP-0203
meaning(<<"jabber:x:delay">>, <<"x">>, El) -> {delay, to_xml(El)};                             % XEP-0091
meaning(<<"urn:xmpp:message-correct:", _/binary>>, <<"replace">>, El) -> {replace, to_xml(El)};  % XEP-0308
meaning(<<"urn:xmpp:message-retract:", _/binary>>, <<"retract">>, El) -> {retract, to_xml(El)};  % XEP-0424
meaning(<<"urn:xmpp:fasten:0">>, <<"apply-to">>, El) -> fastened(to_xml(El));                  % XEP-0422
meaning(<<"urn:xmpp:reactions:", _/binary>>, <<"reactions">>, _) -> {reactions, true};         % XEP-0444
meaning(<<"urn:xmpp:reply:", _/binary>>, <<"reply">>, El) -> {reply, to_xml(El)};              % XEP-0461
meaning(<<"urn:xmpp:fallback:", _/binary>>, <<"fallback">>, El) -> {fallback, to_xml(El)};     % XEP-0428
meaning(<<"urn:xmpp:feature-fallback:", _/binary>>, <<"fallback">>, El) -> {fallback, to_xml(El)};
meaning(<<"urn:xmpp:spoiler:", _/binary>>, <<"spoiler">>, El) -> {spoiler, to_xml(El)};        % XEP-0382
meaning(<<"jabber:x:oob">>, <<"x">>, El) -> {oob, to_xml(El)};                                 % XEP-0066
meaning(<<"urn:xmpp:sfs:", _/binary>>, <<"file-sharing">>, El) -> {sfs, to_xml(El)};           % XEP-0447
meaning(<<"urn:xmpp:file:metadata:", _/binary>>, <<"file">>, El) -> {file, to_xml(El)};        % XEP-0446
meaning(<<"urn:xmpp:message-attaching:", _/binary>>, <<"attach-to">>, _) -> {attached, true};  % XEP-0367
meaning(<<"urn:xmpp:stickers:", _/binary>>, <<"sticker">>, _) -> {sticker, true};              % XEP-0449
meaning(<<"urn:xmpp:reference:", _/binary>>, <<"reference">>, El) -> {reference, to_xml(El)};  % XEP-0372
meaning(<<"urn:xmpp:mentions:", _/binary>>, <<"mention">>, El) -> {mention, to_xml(El)};       % XEP-0513
meaning(<<"urn:fluux:mentions:", _/binary>>, <<"mention-all">>, _) -> {everybody, true};
meaning(<<"http://jabber.org/protocol/xhtml-im">>, <<"html">>, El) -> {html, to_xml(El)};      % XEP-0071
meaning(<<"urn:xmpp:eme:", _/binary>>, <<"encryption">>, El) -> {eme, to_xml(El)};             % XEP-0380
meaning(<<"jabber:x:encrypted">>, <<"x">>, _) -> {pgp, true};                                  % XEP-0027
meaning(<<"urn:xmpp:openpgp:", _/binary>>, <<"openpgp">>, _) -> {openpgp, true};               % XEP-0373
meaning(<<"eu.siacs.conversations.axolotl">>, <<"encrypted">>, El) -> {axolotl, to_xml(El)};   % XEP-0384 before 0.4
meaning(<<"urn:xmpp:omemo:", _/binary>>, <<"encrypted">>, El) -> {omemo, to_xml(El)};          % with XEP-0420 inside
meaning(<<"urn:xmpp:jingle-message:", _/binary>>, _, El) -> {call, {message, to_xml(El)}};     % XEP-0353
meaning(<<"urn:xmpp:call-invites:", _/binary>>, _, El) -> {call, {invite, to_xml(El)}};        % XEP-0482
meaning(<<"urn:xmpp:call-message:1">>, _, El) -> {call, {invite_before, to_xml(El)}};          % XEP-0482 before 0.2
meaning(<<"tigase:meet:", _/binary>>, _, El) -> {call, {meeting, to_xml(El)}};
meaning(<<"jabber:x:conference">>, <<"x">>, El) -> {invitation, to_xml(El)};                   % XEP-0249
meaning(<<"urn:xmpp:mix:misc:", _/binary>>, <<"invitation">>, El) -> {channel, to_xml(El)};    % XEP-0407
meaning(<<"urn:xmpp:mix:core:", _/binary>>, <<"mix">>, El) -> {mix, to_xml(El)};               % XEP-0369
meaning(<<"http://jabber.org/protocol/muc#user">>, <<"x">>, El) -> room_says(to_xml(El));      % XEP-0045
meaning(<<"urn:xmpp:occupant-id:", _/binary>>, <<"occupant-id">>, El) -> {occupant, to_xml(El)};  % XEP-0421
meaning(<<"urn:xmpp:attention:", _/binary>>, <<"attention">>, _) -> {attention, true};         % XEP-0224
meaning(<<"urn:xmpp:chat-markers:", _/binary>>, <<"displayed">>, _) -> {displayed, true};      % XEP-0333
meaning(<<"urn:xmpp:mds:displayed:", _/binary>>, <<"displayed">>, _) -> {displayed, true};     % XEP-0490
meaning(?NS_PUBSUB_EVENT, <<"event">>, _) -> {event, true};                                   % what MUC/Sub delivers
meaning(<<"urn:xmpp:carbons:", _/binary>>, Name, _) when Name == <<"sent">>; Name == <<"received">> -> {'not a message', true};
meaning(<<"urn:xmpp:mam:", _/binary>>, <<"result">>, _) -> {'not a message', true};
meaning(<<"urn:xmpp:captcha">>, <<"captcha">>, _) -> {'not a message', true};
meaning(<<"jabber:x:data">>, <<"x">>, El) ->
    case form_type(to_xml(El)) of
        <<"http://jabber.org/protocol/muc#request">> -> {'not a message', true};  % an occupant asks for voice
        _ -> none
    end;
meaning(_, _, _) -> none.

fastened(El) ->
    case {child_of(<<"moderated">>, El), child_of(<<"retract">>, El)} of
        {#xmlel{}, _} -> {retract, El};
        {none, #xmlel{}} -> {retract, El};
        _ -> {attached, true}
    end.

room_says(El) ->
    case {child_of(<<"invite">>, El), has_child(<<"decline">>, El) orelse has_child(<<"status">>, El)} of
        {#xmlel{} = Invite, _} -> {room_invitation, Invite};
        {none, true} -> {'not a message', true};
        _ -> none
    end.

form_type(#xmlel{children = Children}) ->
    case [Field || #xmlel{name = <<"field">>} = Field <- Children, attribute(<<"var">>, Field) == <<"FORM_TYPE">>] of
        [Field | _] -> fxml:get_path_s(Field, [{elem, <<"value">>}, cdata]);
        [] -> <<>>
    end.

occupant_id(Els) ->
    case [El || El <- Els, xmpp:get_name(El) == <<"occupant-id">>] of
        [El | _] -> limited(attribute(<<"id">>, El));
        [] -> <<>>
    end.

%% The order of these steps is part of what is promised: each may end the reading. Most messages are short texts without
%% anything beside or in them, and need none of the steps.
read(#message{type = Type, body = [#text{lang = Of, data = Text}], subject = [], lang = Lang} = Message, Meanings)
  when Type == chat; Type == normal ->
    case is_plain(Meanings) andalso is_simple(Text) of
        true -> #found{bodies = [{if Of == Lang -> <<>>; true -> Of end, Text}], attrs = attrs(Message, Meanings)};
        false -> read_all(Message, Meanings)
    end;
read(Message, Meanings) -> read_all(Message, Meanings).

%% A text that is no place, address or OTR, has no character to replace, and ends with no blank; others are read in full.
is_simple(<<C, _/binary>> = Text) when C > $\s, C /= $?, C /= $g, byte_size(Text) < 1000 -> is_simple(Text, $\s);
is_simple(_) -> false.

%% The five leading bytes are those of all blanks and controls above ASCII; aesgcm: needs no # to be an address with a key.
is_simple(<<"aesgcm:", _/binary>>, _) -> false;
is_simple(<<C, Rest/binary>>, _) when C >= $\s, C < 16#7F, C /= $#; C > 16#7F, C /= 16#C2, C /= 16#E1, C /= 16#E2, C /= 16#E3, C /= 16#EF ->
    is_simple(Rest, C);
is_simple(Rest, Last) -> Rest == <<>> andalso Last /= $\s.

read_all(#message{type = Type} = Message, Meanings) ->
    case is_map_key('not a message', Meanings) orelse is_history(Message, Meanings) of
        true -> none;
        false when Type == headline, not is_map_key(attention, Meanings) -> none;
        false -> read_call(Message, Meanings)
    end.

read_call(#message{id = Id} = Message, #{call := Calls} = Meanings) ->
    %% One stanza may announce the call in several ways; the first of these has the id that the clients go by.
    Ordered = [Call || First <- [message, invite, invite_before, meeting], {Kind, _} = Call <- Calls, Kind == First],
    case [Said || {Kind, El} <- Ordered, Said <- [call(Kind, El, Id)], Said /= none] of
        [{Class, Call, More} | _] when byte_size(Call) =< ?ID_MAX ->
            #found{class = Class, attrs = [{<<"call">>, Call} | More] ++ attrs(Message, Meanings), migrated = migrated(Calls)};
        _ -> none
    end;
read_call(Message, Meanings) -> read_retraction(Message, Meanings).

%% XEP-0424, and XEP-0425 in a room: that comes from the room itself, and from nobody else.
read_retraction(#message{type = groupchat, from = #jid{lresource = Resource}} = Message, #{retract := [El | _]} = Meanings) ->
    IsModerated = has_child(<<"moderated">>, El),
    case optional(<<"of">>, attribute(<<"id">>, El)) of
        [] -> none;
        Of when Resource == <<>> -> retraction([{<<"by">>, <<"room">>}, {<<"of-stanza">>, <<"true">>} | Of], Message, Meanings);
        _ when IsModerated -> none;
        Of -> retraction([{<<"of-stanza">>, <<"true">>} | Of], Message, Meanings)
    end;
read_retraction(Message, #{retract := [El | _]} = Meanings) ->
    case optional(<<"of">>, attribute(<<"id">>, El)) of
        [_] = Of -> case has_child(<<"moderated">>, El) of
                        false -> retraction(Of, Message, Meanings);
                        true -> none
                    end;
        [] -> none
    end;
read_retraction(#message{type = groupchat, from = #jid{lresource = <<>>}}, _) -> none;  % what a room itself says
read_retraction(_, #{reactions := _}) -> none;
read_retraction(Message, Meanings) -> read_encrypted(Message, Meanings).

retraction(Attrs, #message{id = Id}, Meanings) ->
    #found{event = retraction, attrs = Attrs ++ optional(<<"id">>, Id), occupant = occupant(Meanings)}.

%% The outer body is a placeholder: what tells a message from typing, markers and keys is what stands beside it.
read_encrypted(Message, Meanings) ->
    HasBody = lists:any(fun(#text{data = Text}) -> not is_blank(Text) end, Message#message.body),
    case is_encrypted(Meanings, HasBody) of
        true -> #found{class = encrypted, attrs = replaces(Meanings) ++ attrs(Message, Meanings), points = points(Message, Meanings),
                       occupant = occupant(Meanings), nick = mix_nick(Meanings), author = mix_author(Meanings)};
        false -> none;
        none -> read_otr(Message, Meanings)
    end.

is_encrypted(#{axolotl := Els} = Meanings, HasBody) ->
    has_payload(Els ++ maps:get(omemo, Meanings, [])) andalso (HasBody orelse is_pidgin(Meanings));
is_encrypted(#{omemo := Els}, HasBody) -> has_payload(Els) andalso HasBody;
is_encrypted(#{openpgp := _}, true) -> true;
is_encrypted(#{openpgp := _} = Meanings, false) ->
    is_map_key(eme, Meanings) andalso not has_hint([<<"store">>, <<"no-store">>, <<"no-permanent-store">>], Meanings);
is_encrypted(#{pgp := _} = Meanings, HasBody) -> HasBody orelse not has_hint([<<"no-store">>, <<"no-permanent-store">>], Meanings);
is_encrypted(#{eme := _}, HasBody) -> HasBody;
is_encrypted(_, _) -> none.

has_payload(Els) -> lists:any(fun(El) -> has_child(<<"payload">>, El) end, Els).

%% Pidgin sends no body, but names the encryption; what others send without a body is typing, a marker or a reaction.
is_pidgin(#{omemo := _}) -> false;
is_pidgin(#{eme := [El | _]} = Meanings) ->
    attribute(<<"name">>, El) /= <<>> andalso has_hint([<<"store">>], Meanings)
        andalso not has_hint([<<"no-store">>, <<"no-permanent-store">>], Meanings);
is_pidgin(_) -> false.

has_hint(Names, Meanings) -> lists:any(fun(Hint) -> lists:member(Hint, Names) end, maps:get(hint, Meanings, [])).

read_otr(#message{body = [#text{data = <<"?OTR", Rest/binary>>} | _]} = Message, Meanings) ->
    case otr(Rest) of
        message -> #found{class = encrypted, attrs = replaces(Meanings) ++ attrs(Message, Meanings)};
        none -> none;
        text -> read_invitation(Message, Meanings)
    end;
read_otr(Message, Meanings) -> read_invitation(Message, Meanings).

%% Data of both versions, questions, and the first part of what was divided; not the exchange of keys.
otr(<<":AAMD", _/binary>>) -> message;
otr(<<":AAID", _/binary>>) -> message;
otr(<<":", _/binary>>) -> none;
otr(<<" Error", _/binary>>) -> none;
otr(<<"?", _/binary>>) -> message;
otr(<<"v", _/binary>>) -> message;
otr(<<"|", Rest/binary>>) -> part(binary:split(Rest, <<",">>));
otr(<<",", Rest/binary>>) -> part([<<>>, Rest]);
otr(_) -> text.

part([_, Rest]) ->
    case [is_first(Number) || Number <- binary:split(Rest, <<",">>)] of
        [true | _] -> message;
        _ -> none
    end;
part(_) -> none.

is_first(Number) -> try binary_to_integer(Number) == 1 catch _:_ -> false end.

%% The body of an invitation is made by the room and may hold its password: it is left out.
read_invitation(#message{type = groupchat} = Message, Meanings) -> read_attached(Message, Meanings);
read_invitation(#message{from = From} = Message, #{room_invitation := [Invite | _]} = Meanings) ->
    Inviter = decode_jid(attribute(<<"from">>, Invite)),
    invitation(bare(From), [{<<"inviter">>, encode(Inviter)} || is_record(Inviter, jid)],
               case Inviter of #jid{} -> Inviter; none -> undefined end, Message, Meanings);
read_invitation(Message, #{invitation := [El | _]} = Meanings) ->
    invitation(decode_jid(attribute(<<"jid">>, El)), [], undefined, Message, Meanings);
read_invitation(Message, #{channel := [El | _]} = Meanings) ->
    invitation(decode_jid(text_of(child_of(<<"channel">>, El))), [], undefined, Message, Meanings);
read_invitation(Message, Meanings) -> read_attached(Message, Meanings).

invitation(none, _, _, Message, Meanings) -> read_attached(Message, Meanings);
invitation(#jid{} = Room, More, Inviter, Message, Meanings) -> invitation(bare(Room), More, Inviter, Message, Meanings);
invitation(Room, More, Inviter, Message, Meanings) ->
    #found{class = invite, attrs = [{<<"room">>, Room} | More] ++ attrs(Message, Meanings), room = Room, inviter = Inviter}.

%% What belongs to an earlier message is no message of its own.
read_attached(_, #{attached := _}) -> none;
read_attached(Message, Meanings) -> read_text(Message, Meanings).

read_text(#message{type = Type, body = Texts, lang = Lang} = Message, Meanings) ->
    Raw = languages(Texts, Lang),
    {Kind, Name, Bodies} = content(Raw, Message, Meanings),
    Attention = Type /= groupchat andalso is_map_key(attention, Meanings) andalso not is_map_key(delay, Meanings),
    if
        Type == headline, not Attention -> none;
        Bodies == [], Kind == none, not Attention -> blank(Message, Raw, Meanings);
        true ->
            {Shown, Hide} = hints(Bodies, Meanings),
            #found{class = if Attention -> attention; true -> text end,
                   bodies = [{Of, cut(Text, ?BODY_MAX)} || {Of, Text} <- Shown],
                   words = case {Type, Bodies} of
                               {groupchat, [{_, Words} | _]} -> cut(unquoted(Words), ?BODY_MAX);
                               _ -> <<>>
                           end,
                   attrs = [{<<"kind">>, Kind} || Kind /= none] ++ [{<<"file">>, Name} || Name /= <<>>] ++ Hide
                       ++ replaces(Meanings) ++ attrs(Message, Meanings),
                   points = points(Message, Meanings), occupant = occupant(Meanings), nick = mix_nick(Meanings),
                   author = mix_author(Meanings)}
    end.

%% {Kind, File, Bodies}: what is sent, and what is left of the text.
content(Raw, Message, Meanings) ->
    Default = default(Raw),
    case is_place(Default) orelse is_blank(Default) andalso lists:any(fun is_place/1, oob_addresses(Meanings)) of
        true -> {<<"location">>, <<>>, []};
        false ->
            Sticker = is_map_key(sticker, Meanings),
            {Kind, Name, Description, Addresses} = case Sticker of
                                                       true -> {<<"sticker">>, <<>>, <<>>, []};
                                                       false -> file(Default, Meanings)
                                                   end,
            Cut = [{Lang, cleaned(without(Addresses, Sticker, Body))}
                   || {Lang, Body} <- without_ranges(<<"body">>, Raw, Message, Meanings)],
            Bodies = with_subject(subject(Message, Meanings), [Body || {_, Text} = Body <- Cut, Text /= <<>>]),
            {Html, HasPicture} = html(Raw, Meanings),
            {if Kind == none, HasPicture, Html == <<>> -> <<"image">>; true -> Kind end, Name,
             case {Bodies, [{<<>>, Said} || Said <- [Html, Description], Said /= <<>>]} of
                 {[], [Said | _]} -> [Said];
                 _ -> Bodies
             end}
    end.

default([{_, Text} | _]) -> Text;
default([]) -> <<>>.

%% Some clients take a message back by a correction with a blank body.
blank(Message, [_ | _] = Raw, #{replace := [El | _]} = Meanings) ->
    case {is_blank(default(Raw)), optional(<<"of">>, attribute(<<"id">>, El))} of
        {true, [_] = Of} -> retraction(Of, Message, Meanings);
        _ -> none
    end;
blank(_, _, _) -> none.

%% The default is the text without a language or in that of the stanza, else the first.
languages([], _) -> [];
languages(Texts, Lang) ->
    All = [{if byte_size(Of) > ?LANGUAGE_MAX -> <<>>; true -> Of end, Text} || #text{lang = Of, data = Text} <- Texts],
    {DefaultLang, Default} = hd([Text || {Of, _} = Text <- All, Of == <<>> orelse Of == Lang] ++ All),
    [{if DefaultLang == Lang -> <<>>; true -> DefaultLang end, Default} | others(All, [DefaultLang, Lang, <<>>], ?BODIES_MAX - 1)].

others([{Lang, _} = Text | Rest], Had, Left) when Left > 0 ->
    case lists:member(Lang, Had) of
        true -> others(Rest, Had, Left);
        false -> [Text | others(Rest, [Lang | Had], Left - 1)]
    end;
others(_, _, _) -> [].

%% The topic of a room is no text.
subject(#message{type = groupchat}, _) -> <<>>;
subject(#message{subject = []}, _) -> <<>>;
subject(#message{subject = Texts, lang = Lang} = Message, Meanings) ->
    cut(cleaned(without_keys(default(without_ranges(<<"subject">>, languages(Texts, Lang), Message, Meanings)))), ?BODY_MAX).

with_subject(<<>>, Bodies) -> Bodies;
with_subject(Subject, []) -> [{<<>>, Subject}];
with_subject(Subject, Bodies) -> [{Lang, <<Subject/binary, " — "/utf8, Text/binary>>} || {Lang, Text} <- Bodies].

%% XEP-0382: the hint instead of the text.
hints(_Bodies, #{spoiler := Els}) ->
    Hints = languages([#text{lang = attribute(<<"xml:lang">>, El), data = text_of(El)} || El <- Els], <<>>),
    {[{Lang, Text} || {Lang, Hint} <- Hints, Text <- [cleaned(without_keys(Hint))], Text /= <<>>], [{<<"hide">>, <<"true">>}]};
hints(Bodies, _) -> {Bodies, []}.

%% XEP-0071, where there is no body: {Text, HasPicture}.
html([], #{html := [El | _]}) ->
    case child_of(<<"body">>, El) of
        none -> {<<>>, false};
        Body -> {cut(cleaned(without_keys(trim_start(iolist_to_binary(html_text(Body))))), ?BODY_MAX), has_picture(Body)}
    end;
html(_, _) -> {<<>>, false}.

html_text(#xmlel{name = <<"br">>}) -> <<"\n">>;
html_text(#xmlel{children = Children}) -> [html_text(Child) || Child <- Children];
html_text({xmlcdata, Text}) -> Text.

has_picture(#xmlel{name = <<"img">>} = El) ->
    case attribute(<<"src">>, El) of
        <<"cid:", _/binary>> -> true;
        <<"data:", _/binary>> -> true;
        <<"https:", _/binary>> -> true;
        _ -> false
    end;
has_picture(#xmlel{children = Children}) -> lists:any(fun has_picture/1, Children);
has_picture(_) -> false.

%% What an event says of every kind of message.
attrs(#message{id = Id, to = To}, Meanings) ->
    optional(<<"id">>, Id) ++ [Attr || El <- first(origin, Meanings), Attr <- optional(<<"origin-id">>, attribute(<<"id">>, El))]
        ++ case Meanings of
               #{delay := Els} -> stamp(Els, To);
               _ -> []
           end.

replaces(#{replace := [El | _]}) -> optional(<<"replaces">>, attribute(<<"id">>, El));
replaces(_) -> [].

first(Meaning, Meanings) -> lists:sublist(maps:get(Meaning, Meanings, []), 1).

%% The time of a delay that is not this server's own.
stamp(Els, To) ->
    Times = [Time || El <- Els, not is_own_server(decode_jid(attribute(<<"from">>, El)), To),
                     Time <- [timestamp(attribute(<<"stamp">>, El))], Time /= none],
    [{<<"stamp">>, integer_to_binary(Time)} || Time <- lists:sublist(Times, 1)].

is_own_server(#jid{luser = <<>>, lserver = Server}, #jid{lserver = Server}) -> true;
is_own_server(_, _) -> false.

%% XEP-0082, and the older form without its dashes; in ms.
timestamp(<<Y:4/binary, "-", M:2/binary, "-", D:2/binary, "T", H:2/binary, ":", Min:2/binary, ":", S:2/binary, Rest/binary>>) ->
    timestamp([Y, M, D, H, Min, S], Rest);
timestamp(<<Y:4/binary, M:2/binary, D:2/binary, "T", H:2/binary, ":", Min:2/binary, ":", S:2/binary, Rest/binary>>) ->
    timestamp([Y, M, D, H, Min, S], Rest);
timestamp(_) -> none.

timestamp(Numbers, Rest) ->
    try
        [Y, M, D, H, Min, S] = [digits(Number) || Number <- Numbers],
        true = calendar:valid_date(Y, M, D) andalso H < 24 andalso Min < 60 andalso S < 61,
        {Ms, Zone} = fraction(Rest),
        Seconds = calendar:datetime_to_gregorian_seconds({{Y, M, D}, {H, Min, S}}) - 62167219200 - offset(Zone),
        true = Seconds >= 0,
        Seconds * 1000 + Ms
    catch _:_ -> none
    end.

fraction(<<".", Rest/binary>>) ->
    Length = count_digits(Rest, 0),
    <<Digits:Length/binary, Zone/binary>> = Rest,
    {digits(binary:part(<<Digits/binary, "00">>, 0, 3)), Zone};
fraction(Zone) -> {0, Zone}.

count_digits(<<C, Rest/binary>>, Count) when C >= $0, C =< $9 -> count_digits(Rest, Count + 1);
count_digits(_, Count) -> Count.

offset(<<>>) -> 0;
offset(<<"Z">>) -> 0;
offset(<<"+", H:2/binary, ":", M:2/binary>>) -> digits(H) * 3600 + digits(M) * 60;
offset(<<"-", H:2/binary, ":", M:2/binary>>) -> -(digits(H) * 3600 + digits(M) * 60).

digits(Text) ->
    true = count_digits(Text, 0) == byte_size(Text),
    binary_to_integer(Text).

%% XEP-0045 section 7.2.13; an occupant instead of the room is seen too.
is_history(#message{type = groupchat, from = From}, #{delay := Els}) ->
    lists:any(fun(El) -> is_by(attribute(<<"from">>, El), From) end, Els);
is_history(_, _) -> false.

occupant(#{occupant := [El | _]}) -> limited(attribute(<<"id">>, El));
occupant(_) -> <<>>.

mix_nick(#{mix := [El | _]}) ->
    case text_of(child_of(<<"nick">>, El)) of
        <<>> -> undefined;
        Nick -> limited(Nick)
    end;
mix_nick(_) -> undefined.

mix_author(#{mix := [El | _]}) ->
    case decode_jid(text_of(child_of(<<"jid">>, El))) of
        none -> undefined;
        JID -> JID
    end;
mix_author(_) -> undefined.

migrated(Calls) ->
    hd([To || {message, #xmlel{name = <<"finish">>} = El} <- Calls, #xmlel{} = Migrated <- [child_of(<<"migrated">>, El)],
              To <- [limited(attribute(<<"to">>, Migrated))]] ++ [<<>>]).

%%% Calls --------------------------------------------------------------------------------------------------------------

%% {Class, Id, Attributes}, or none where nobody is to hear of it: what the peer answers is about the account's own call.
call(message, #xmlel{name = <<"propose">>, children = Children} = El, Id) ->
    case media(Children) of
        none -> none;  % not a call: a file, for example
        Media -> call(El, Id, message, [{<<"media">>, Media}])
    end;
call(meeting, #xmlel{name = <<"propose">>, children = Children} = El, Id) ->
    call(El, Id, meeting, media([text_of(Child) || #xmlel{name = <<"media">>} = Child <- Children], <<>>));
call(Kind, #xmlel{name = Name} = El, Id) when Kind == invite, Name == <<"invite">>; Kind == invite_before, Name == <<"propose">> ->
    Offered = [<<"audio">> || not is_false(attribute(<<"audio">>, El))] ++ [<<"video">> || is_true(attribute(<<"video">>, El))],
    call(El, Id, Kind, media(Offered, <<>>));
call(Kind, #xmlel{name = <<"retract">>} = El, Id) ->
    ended(Kind, El, Id, case has_child(<<"tie-break">>, El) of
                            true -> <<"answered">>;  % by the account's own call
                            false -> <<"retracted">>
                        end);
call(Kind, #xmlel{name = <<"finish">>} = El, Id) -> ended(Kind, El, Id, <<"finished">>);
call(_, _, _) -> none.

call(El, Id, Kind, Media) ->
    case call_id(Kind, El, Id) of
        <<>> -> none;
        Call -> {call, Call, Media}
    end.

ended(Kind, El, Id, How) ->
    case call_id(Kind, El, Id) of
        <<>> -> none;
        Call -> {'call-ended', Call, [{<<"ended">>, How}]}
    end.

%% XEP-0482 allows an invitation to go by the id of its message.
call_id(Kind, El, Id) ->
    case attribute(<<"id">>, El) of
        <<>> when Kind == invite, El#xmlel.name == <<"invite">> -> Id;
        <<>> -> <<>>;
        Call -> Call
    end.

is_true(Text) -> Text == <<"true">> orelse Text == <<"1">>.
is_false(Text) -> Text == <<"false">> orelse Text == <<"0">>.

%% What the XEP-0167 descriptions among these elements, or in them, offer; none where there is no such description.
media(Els) ->
    case lists:flatmap(fun rtp/1, Els) of
        [] -> none;
        Offered -> case media(Offered, <<>>) of
                       [{_, Media}] -> Media;
                       [] -> <<"audio">>
                   end
    end.

rtp(#xmlel{name = <<"description">>} = El) ->
    case attribute(<<"xmlns">>, El) of
        <<"urn:xmpp:jingle:apps:rtp:", _/binary>> -> [attribute(<<"media">>, El)];
        _ -> []
    end;
rtp(#xmlel{name = <<"content">>, children = Children}) -> lists:flatmap(fun rtp/1, Children);
rtp(_) -> [].

media(Offered, _) ->
    case lists:join(<<" ">>, [Medium || Medium <- [<<"audio">>, <<"video">>], lists:member(Medium, Offered)]) of
        [] -> [];
        Words -> [{<<"media">>, iolist_to_binary(Words)}]
    end.

%%% Texts --------------------------------------------------------------------------------------------------------------

%% XEP-0428, for what an alert does not show. A range that names no language is of the text that names none, if there is one.
without_ranges(Part, Texts, #message{lang = Lang}, #{fallback := Els}) ->
    Ranges = lists:sublist(lists:flatmap(fun(El) -> fallback(Part, El) end, Els), ?RANGES_MAX),
    Keys = [language_key(Of, Lang) || {Of, _} <- Texts],
    HasDefault = lists:member(<<>>, Keys),
    [{Of, cut_ranges(Text, [Range || {Range, For} <- Ranges,
                                     Range == all andalso For == <<>> orelse For == <<>> andalso not HasDefault
                                         orelse language_key(For, Lang) == Key])}
     || {Key, {Of, Text}} <- lists:zip(Keys, Texts)];
without_ranges(_, Texts, _, _) -> Texts.

%% A language as it is compared: <<>> for none and for that of the stanza.
language_key(Of, Lang) ->
    case {string:lowercase(Of), string:lowercase(Lang)} of
        {Key, Key} -> <<>>;
        {Key, _} -> Key
    end.

%% {Range, Language} each; a range is {Start, End} or all.
fallback(Part, #xmlel{children = Children} = El) ->
    case is_cut(attribute(<<"for">>, El)) of
        false -> [];
        true ->
            case [Child || #xmlel{} = Child <- Children] of
                [] -> [{all, <<>>}];
                Parts -> [{Range, case attribute(<<"xml:lang">>, Child) of <<>> -> attribute(<<"xml:lang">>, El); Lang -> Lang end}
                          || #xmlel{name = Name} = Child <- Parts, Name == Part,
                             Range <- [range(attribute(<<"start">>, Child), attribute(<<"end">>, Child))], Range /= none]
            end
    end.

is_cut(<<>>) -> true;
is_cut(<<"urn:xmpp:reply:", _/binary>>) -> true;
is_cut(<<"urn:xmpp:reactions:", _/binary>>) -> true;
is_cut(<<"urn:xmpp:message-retract:", _/binary>>) -> true;
is_cut(<<"urn:xmpp:message-correct:", _/binary>>) -> true;
is_cut(<<"urn:xmpp:sfs:", _/binary>>) -> true;
is_cut(<<"jabber:x:oob">>) -> true;
is_cut(_) -> false.

range(<<>>, <<>>) -> all;
range(Start, End) when byte_size(Start) < 10, byte_size(End) < 10 ->
    try {digits(Start), digits(End)} of
        {From, To} when From < To -> {From, To};
        _ -> none
    catch _:_ -> none
    end;
range(_, _) -> none.

cut_ranges(Text, []) -> Text;
cut_ranges(Text, Ranges) ->
    case lists:member(all, Ranges) of
        true -> <<>>;
        false ->
            Characters = unicode:characters_to_list(Text),
            Merged = merge(lists:sort([in_characters(Range, Characters, length(Characters)) || Range <- Ranges])),
            Rest = unicode:characters_to_binary(kept(Characters, 0, Merged)),
            case Merged of
                [{0, _} | _] -> trim_start(Rest);
                _ -> Rest
            end
    end.

%% Some clients count UTF-16 units. A range that ends behind the text is read that way. One that ends a few characters
%% behind the last line of a quotation is moved back to the end of that line, if wide characters in it may be the cause.
in_characters({Start, End}, Characters, Length) when End > Length ->
    case utf16(Characters, End) of
        none -> {Start, Length};
        Last -> {case utf16(Characters, Start) of none -> Start; First -> First end, Last}
    end;
in_characters({Start, End}, Characters, _) ->
    Range = lists:sublist(lists:nthtail(Start, Characters), End - Start),
    Wide = length([C || C <- Range, C > 16#FFFF]),
    Tail = lists:foldl(fun($\n, _) -> [];  % the last line, from its end
                          (_, none) -> none;
                          (C, Line) -> [C | Line]
                       end, none, Range),
    case Tail of
        [_ | _] when length(Tail) =< Wide -> {Start, case lists:last(Tail) of $> -> End; _ -> End - length(Tail) end};
        _ -> {Start, End}
    end.

%% How many characters so many UTF-16 units are.
utf16(Characters, Units) -> utf16(Characters, Units, 0).

utf16(_, Units, Count) when Units =< 0 -> Count;
utf16([], _, _) -> none;
utf16([C | Rest], Units, Count) when C > 16#FFFF -> utf16(Rest, Units - 2, Count + 1);
utf16([_ | Rest], Units, Count) -> utf16(Rest, Units - 1, Count + 1).

merge([{Start, End}, {Next, Last} | Rest]) when Next =< End -> merge([{Start, max(End, Last)} | Rest]);
merge([Range | Rest]) -> [Range | merge(Rest)];
merge([]) -> [].

kept(Characters, _, []) -> Characters;
kept([], _, _) -> [];
kept(Characters, At, [{_, End} | Rest]) when At >= End -> kept(Characters, At, Rest);
kept([_ | Characters], At, [{Start, _} | _] = Ranges) when At >= Start -> kept(Characters, At + 1, Ranges);
kept([C | Characters], At, Ranges) -> [C | kept(Characters, At + 1, Ranges)].

%% Control characters and line separators are spaces; blanks at the end are cut off.
cleaned(Text) -> trim_end(spaced(Text)).

spaced(Text) ->
    case has_control(Text) of
        false -> Text;
        true -> << <<(if C >= 16#7F, C =< 16#9F; C == 16#2028; C == 16#2029 -> $\s; true -> allowed(C) end)/utf8>> || <<C/utf8>> <= Text>>
    end.

has_control(<<C, Rest/binary>>) when C >= $\s, C < 16#7F; C == $\n; C == $\t; C == $\r -> has_control(Rest);
has_control(<<C, _/binary>>) when C < $\s -> true;
has_control(<<16#7F, _/binary>>) -> true;
has_control(<<16#C2, C, _/binary>>) when C < 16#A0 -> true;
has_control(<<16#E2, 16#80, C, _/binary>>) when C == 16#A8; C == 16#A9 -> true;
has_control(<<16#EF, 16#BF, C, _/binary>>) when C >= 16#BE -> true;
has_control(<<_, Rest/binary>>) -> has_control(Rest);
has_control(<<>>) -> false.

%% XML 1.0 has no way to write some characters: one of them ends a stream. No client can send them, but an address of a file
%% may name them by their bytes, and what a command of the server or a gateway says need not have been XML.
allowed(C) when C >= $\s, C /= 16#FFFE, C /= 16#FFFF; C == $\n; C == $\t; C == $\r -> C;
allowed(_) -> $\s.

is_allowed_text(<<A, B, C, D, Rest/binary>>)
  when A >= $\s, A < 128, B >= $\s, B < 128, C >= $\s, C < 128, D >= $\s, D < 128 -> is_allowed_text(Rest);  % four are as fast as one
is_allowed_text(<<C/utf8, Rest/binary>>) -> allowed(C) == C andalso is_allowed_text(Rest);
is_allowed_text(Rest) -> Rest == <<>>.

is_blank(Text) -> trim_start(Text) == <<>>.

trim_start(<<C/utf8, Rest/binary>> = Text) ->
    case is_space(C) of
        true -> trim_start(Rest);
        false -> Text
    end;
trim_start(Text) -> Text.

trim_end(Text) -> trim_end(Text, byte_size(Text)).

trim_end(_, 0) -> <<>>;
trim_end(Text, Size) ->
    At = start_of(Text, Size - 1),
    <<_:At/binary, C/utf8, _/binary>> = Text,
    case is_space(C) of
        true -> trim_end(Text, At);
        false -> binary:part(Text, 0, Size)
    end.

start_of(Text, At) ->
    case binary:at(Text, At) of
        C when C >= 16#80, C < 16#C0, At > 0 -> start_of(Text, At - 1);
        _ -> At
    end.

%% Blanks of every width, none included.
is_space(C) -> C =< 32 orelse C == 16#A0 orelse C == 16#AD orelse C == 16#1680 orelse (C >= 16#2000 andalso C =< 16#200F)
                   orelse (C >= 16#2028 andalso C =< 16#202F) orelse (C >= 16#205F andalso C =< 16#206F) orelse C == 16#3000
                   orelse C == 16#3164 orelse C == 16#FEFF.

%% Without the lines that quote (XEP-0393).
unquoted(Text) ->
    case binary:match(Text, <<">">>) of
        nomatch -> Text;
        _ -> iolist_to_binary(lists:join(<<"\n">>, [Line || Line <- binary:split(Text, <<"\n">>, [global]), not is_quote(Line)]))
    end.

is_quote(<<">", _/binary>>) -> true;
is_quote(_) -> false.

cut(Text, Bytes) when byte_size(Text) =< Bytes -> Text;
cut(Text, Bytes) -> binary:copy(binary:part(Text, 0, start_of(Text, Bytes))).

%%% Files and places ---------------------------------------------------------------------------------------------------

%% RFC 5870.
is_place(Text) when byte_size(Text) > ?ID_MAX -> false;
is_place(Text) ->
    case trim_start(Text) of
        <<"geo:", _/binary>> = Place ->
            re:run(trim_end(Place), "^geo:[+-]?[0-9.]+,[+-]?[0-9.]+[A-Za-z0-9,;=.%+_-]*$", [dollar_endonly, {capture, none}]) == match;
        _ -> false
    end.

oob_addresses(Meanings) -> [text_of(child_of(<<"url">>, El)) || El <- first(oob, Meanings)].

%% {Kind, Name, Description, Addresses}: what is sent, and the addresses of it, which are not part of the text.
file(Default, Meanings) ->
    Described = [El || Sharing <- first(sfs, Meanings), #xmlel{} = El <- [child_of(<<"file">>, Sharing)]] ++ first(file, Meanings)
        ++ shared_media(Meanings),
    Linked = oob_addresses(Meanings),
    Keyed = keyed_addresses(Default),
    Trimmed = trim_start(trim_end(Default)),
    IsFile = lists:member(Trimmed, Linked) orelse Trimmed == <<>> orelse is_cut_link(Meanings),
    case {Described, Linked} of
        {[El | _], _} ->
            Addresses = [Trimmed || is_address(Trimmed)] ++ Linked ++ sources(Meanings),
            described(El, hd(Addresses ++ Keyed ++ [<<>>]), Addresses);
        {[], [Address | _]} when IsFile, Address /= <<>> ->
            Name = file_name(Address),
            {kind(<<>>, Name), Name, description(first(oob, Meanings)), [Address]};
        _ when Keyed /= [] ->
            Name = file_name(hd(Keyed)),
            {kind(<<>>, Name), Name, <<>>, []};
        _ -> {none, <<>>, <<>>, []}
    end.

%% XEP-0446.
described(El, Address, Addresses) ->
    Name = case file_label(text_of(child_of(<<"name">>, El))) of
               <<>> -> file_name(Address);
               Given -> Given
           end,
    {kind(string:lowercase(trim_start(cut(text_of(child_of(<<"media-type">>, El)), ?NAME_MAX))), Name), Name, description([El]), Addresses}.

description(Els) -> iolist_to_binary([cut(cleaned(without_keys(text_of(child_of(<<"desc">>, El)))), ?BODY_MAX) || El <- Els]).

%% A name as people may read it.
file_label(Name) ->
    case is_keyed(Name) of
        true -> <<>>;
        false -> shown_name(without_suffix(shown_name(binary:replace(cut(Name, 4 * ?NAME_MAX), [<<"/">>, <<"\\">>], <<" ">>, [global]))))
    end.

is_cut_link(#{fallback := Els}) ->
    lists:any(fun(El) -> lists:member(attribute(<<"for">>, El), [<<"jabber:x:oob">>, <<"urn:xmpp:sfs:0">>]) end, Els);
is_cut_link(_) -> false.

%% XEP-0385; without a media type it is the preview of a link.
shared_media(Meanings) ->
    [File || Reference <- maps:get(reference, Meanings, []), attribute(<<"type">>, Reference) == <<"data">>,
             #xmlel{} = Sharing <- [child_of(<<"media-sharing">>, Reference)], #xmlel{} = File <- [child_of(<<"file">>, Sharing)],
             has_child(<<"media-type">>, File)].

sources(Meanings) ->
    [Address || Sharing <- first(sfs, Meanings) ++ [Media || Reference <- maps:get(reference, Meanings, []),
                                                             #xmlel{} = Media <- [child_of(<<"media-sharing">>, Reference)]],
                #xmlel{children = Sources} <- [child_of(<<"sources">>, Sharing)], #xmlel{} = Source <- Sources,
                Address <- [attribute(<<"target">>, Source), attribute(<<"uri">>, Source)], Address /= <<>>].

is_address(Text) ->
    case Text of
        <<"http://", _/binary>> -> true;
        <<"https://", _/binary>> -> true;
        <<"aesgcm://", _/binary>> -> true;
        _ -> false
    end andalso nomatch == binary:match(Text, [<<" ">>, <<"\n">>, <<"\t">>]).

%% The text without these addresses and whatever has a key in it.
without(_Addresses, true, Text) ->
    case is_address(trim_end(trim_start(Text))) of
        true -> <<>>;
        false -> without_keys(Text)
    end;
without(Addresses, false, Text) ->
    Taken = lists:sublist([Address || Address <- Addresses, Address /= <<>>], ?ADDRESSES_MAX),
    Text1 = lists:foldl(fun remove/2, Text, lists:usort(Taken)),
    case Text1 of
        Text -> without_keys(Text);
        _ -> without_keys(trim_start(Text1))
    end.

remove(Address, Text) ->
    case binary:split(Text, Address) of
        [Before, After] -> join(Before, After);
        [_] -> Text
    end.

join(Before, After) ->
    case {trim_end(Before), trim_start(After)} of
        {<<>>, Text} -> Text;
        {Text, <<>>} -> Text;
        {Text, Rest} -> <<Text/binary, (case binary:match(Text, <<"\n">>) of nomatch -> $\s; _ -> $\n end), Rest/binary>>
    end.

%% XEP-0454: the key of the file is in its address. Such a word is left out, and with it the line of a preview.
without_keys(Text) ->
    case may_have_key(Text) andalso keyed_addresses(Text) /= [] of
        false -> Text;
        true ->
            Lines = [lists:join(<<" ">>, [Word || Word <- binary:split(Line, <<" ">>, [global]), not is_keyed(Word)])
                     || Line <- binary:split(Text, <<"\n">>, [global]), not is_preview(Line)],
            iolist_to_binary(lists:join(<<"\n">>, [Line || Line <- Lines, Line /= []]))
    end.

is_preview(<<"data:", _/binary>>) -> true;
is_preview(_) -> false.

keyed_addresses(Text) ->
    case may_have_key(Text) of
        true -> [address(Word) || Word <- binary:split(Text, [<<" ">>, <<"\n">>], [global]), is_keyed(Word)];
        false -> []
    end.

may_have_key(Text) -> binary:match(Text, [<<"aesgcm://">>, <<"#">>]) /= nomatch.

is_keyed(Word) ->
    binary:match(Word, <<"aesgcm://">>) /= nomatch
        orelse binary:match(Word, <<"://">>) /= nomatch andalso lists:any(fun is_key/1, tl(binary:split(Word, <<"#">>, [global]))).

%% 44 or 48 bytes in hexadecimal.
is_key(Fragment) ->
    Length = count_hex(Fragment, 0),
    Length == 88 orelse Length == 96.

count_hex(<<C, Rest/binary>>, Count) when C >= $0, C =< $9; C >= $a, C =< $f; C >= $A, C =< $F -> count_hex(Rest, Count + 1);
count_hex(_, Count) -> Count.

address(Word) ->
    {At, _} = binary:match(Word, [<<"aesgcm://">>, <<"https://">>, <<"http://">>, <<"://">>]),
    binary:part(Word, At, byte_size(Word) - At).

%% The last part of the path.
file_name(Address) ->
    [Path | _] = binary:split(Address, [<<"?">>, <<"#">>]),
    case binary:split(Path, <<"://">>) of
        [_, Rest] ->
            case binary:split(Rest, <<"/">>, [global]) of
                [_, _ | _] = Parts -> file_label(decoded(lists:last(Parts)));
                _ -> <<>>
            end;
        _ -> <<>>
    end.

decoded(Part) ->
    Decoded = decode_percent(Part),
    case unicode:characters_to_binary(Decoded) of
        Decoded -> Decoded;
        _ -> Part
    end.

without_suffix(Name) ->
    case string:lowercase(filename:extension(Name)) of
        Suffix when Suffix == <<".pgp">>; Suffix == <<".gpg">>; Suffix == <<".enc">> -> filename:rootname(Name);
        _ -> Name
    end.

kind(<<"image/gif", _/binary>>, _) -> <<"gif">>;
kind(<<"image/", _/binary>>, _) -> <<"image">>;
kind(<<"video/", _/binary>>, _) -> <<"video">>;
kind(<<"audio/", _/binary>>, <<"RECORDING_", _/binary>>) -> <<"voice">>;
kind(<<"audio/", _/binary>>, <<"voice-message-", _/binary>>) -> <<"voice">>;
kind(<<"audio/", _/binary>>, _) -> <<"audio">>;
kind(<<>>, Name) ->
    case media_type(string:lowercase(filename:extension(Name))) of
        <<>> -> <<"file">>;
        Type -> kind(Type, Name)
    end;
kind(_, _) -> <<"file">>.

media_type(<<".gif">>) -> <<"image/gif">>;
media_type(Suffix) ->
    Types = [{<<"image/">>, ".jpg .jpeg .png .webp .heic .heif .avif .bmp .svg .tif .tiff .jxl"},
             {<<"video/">>, ".mp4 .m4v .mov .webm .mkv .avi .3gp .mpg .mpeg .ogv"},
             {<<"audio/">>, ".mp3 .m4a .ogg .oga .opus .aac .wav .flac .amr"}],
    case [Type || {Type, Suffixes} <- Types, lists:member(binary_to_list(Suffix), string:lexemes(Suffixes, " "))] of
        [Type] -> Type;
        [] -> <<>>
    end.

%%% Who is meant -------------------------------------------------------------------------------------------------------

%% What the elements of a group message say of whom it is for; the process of the host knows who that is.
points(#message{type = groupchat}, Meanings) ->
    lists:sublist(lists:flatmap(fun mention/1, maps:get(mention, Meanings, []))
                  ++ lists:flatmap(fun reference/1, maps:get(reference, Meanings, []))
                  ++ [everybody || _ <- first(everybody, Meanings)]
                  ++ [{reply, To} || El <- first(reply, Meanings), To <- [attribute(<<"to">>, El)], To /= <<>>, byte_size(To) =< ?ID_MAX],
                  ?PAGE_MAX);
points(_, _) -> [].

mention(El) ->
    Points = [{jid, JID} || JID <- [attribute(<<"jid">>, El)], JID /= <<>>, byte_size(JID) =< ?ID_MAX]
        ++ [{occupant, Id} || Id <- [limited(attribute(<<"occupantid">>, El))], Id /= <<>>]
        ++ [everybody || is_everybody(attribute(<<"mentions">>, El))],
    case has_child(<<"noping">>, El) of
        true -> [{quiet, Point} || Point <- Points];
        false -> [{said, Point} || Point <- Points]
    end.

is_everybody(<<"urn:xmpp:mentions:0#", Whom/binary>>) ->
    lists:member(Whom, [<<"channel">>, <<"space">>, <<"server">>, <<"participants">>]);
is_everybody(_) -> false.

reference(El) ->
    case {attribute(<<"type">>, El), attribute(<<"uri">>, El)} of
        {<<"mention">>, <<"xmpp:", Address/binary>>} when byte_size(Address) =< 3 * ?ID_MAX -> [{jid, decode_percent(Address)}];
        _ -> []
    end.

decode_percent(Text) -> decode_percent(Text, <<>>).

decode_percent(<<$%, A, B, Rest/binary>>, Decoded) ->
    case {hex(A), hex(B)} of
        {High, Low} when High < 16, Low < 16 -> decode_percent(Rest, <<Decoded/binary, (High * 16 + Low)>>);
        _ -> decode_percent(<<A, B, Rest/binary>>, <<Decoded/binary, $%>>)
    end;
decode_percent(<<C, Rest/binary>>, Decoded) -> decode_percent(Rest, <<Decoded/binary, C>>);
decode_percent(<<>>, Decoded) -> Decoded.

hex(C) when C >= $0, C =< $9 -> C - $0;
hex(C) when C >= $a, C =< $f -> C - $a + 10;
hex(C) when C >= $A, C =< $F -> C - $A + 10;
hex(_) -> 16.

%%% From the relay -----------------------------------------------------------------------------------------------------

decode_iq_subel(El) -> El.  % no codec knows our namespace

%% mod_privilege of ejabberd 24.10 and later drops the requests of a component that has no privilege, and of 24.12 also
%% those of one that has. What the relay sends to a host or to the bare JID of an account does not reach it.
component_sends({#iq{from = #jid{lserver = Component}, to = #jid{lresource = <<>>}}, _State} = Acc) ->
    case persistent_term:get({?MODULE, component, Component}, false) of
        true -> {stop, Acc};
        false -> Acc
    end;
component_sends(Acc) -> Acc.

%% ejabberd runs this in the process of the connection it came over: that is the link.
process_iq(#iq{type = get, from = From, to = #jid{lserver = Host}, sub_els = [#xmlel{} = El]} = IQ) ->
    case option(Host, component) == From#jid.lserver of
        true ->
            gen_server:cast(process_of(Host, attribute(<<"node">>, El)), {snapshot, self(), IQ, El}),
            ignore;
        false -> xmpp:make_error(IQ, xmpp:err_forbidden())
    end;
process_iq(IQ) -> xmpp:make_error(IQ, xmpp:err_not_allowed()).

%% In a cluster every node has a stream of its own; the node with the link passes on what is meant for another.
process_of(Host, Node) ->
    case [N || N <- ejabberd_cluster:get_nodes(), atom_to_binary(N, utf8) == Node] of
        [N] -> {proc(Host), N};
        [] -> proc(Host)
    end.

host_receives(#message{from = #jid{lserver = Component}, to = #jid{lserver = Host}, sub_els = Els}) ->
    case option(Host, component) of
        Component ->
            case [El || #xmlel{name = <<"ack">>} = El <- Els, xmpp:get_ns(El) == ?NS_BRIDGE] of
                [El | _] ->
                    acknowledge(process_of(Host, attribute(<<"node">>, El)), Host,
                                {ack, attribute(<<"epoch">>, El), attribute(<<"seq">>, El)}),
                    stop;
                [] -> ok
            end;
        _ -> ok
    end;
host_receives(_) -> ok.

%% Nobody waits for it: it is read with whatever comes next. But where the relay was stuck, nothing else may come.
acknowledge(Process, Host, Ack) when is_atom(Process) ->
    try
        #shared{counters = Counters} = Shared = shared(Host),
        insert(Ack, Shared),
        atomics:get(Counters, ?STUCK) == 1 andalso wake(Shared)
    catch error:badarg -> true
    end;
acknowledge({_, Node} = Process, Host, Ack) when Node == node() -> acknowledge(element(1, Process), Host, Ack);
acknowledge(Process, _Host, Ack) -> gen_server:cast(Process, Ack).

user_removed(User, Server) ->
    add(Server, {removed, jid:nodeprep(User), jid:nameprep(Server), milliseconds()}).

account_changed(User, Server) -> add(jid:nameprep(Server), {account_changed, jid:nodeprep(User)}).

%%% The process of the host --------------------------------------------------------------------------------------------

init([Host | _]) ->
    process_flag(trap_exit, true),
    process_flag(min_heap_size, ?HEAP_MIN),
    Shared = #shared{pid = self(), counters = atomics:new(5, []), inbox = ets:new(?MODULE, [public])},
    persistent_term:put({?MODULE, Host}, Shared),
    State = configured(gen_mod:get_module_opts(Host, ?MODULE),
                       #state{host = Host, shared = Shared, known = ets:new(?MODULE, []), component = <<>>,
                              heartbeat = 1, queue_size = 1, queue_time = 1,
                              repeats = ets:new(?MODULE, []), repeats_before = ets:new(?MODULE, []), repeats_since = seconds(),
                              lookups = start_lookups(Host), answers = ets:new(?MODULE, []),
                              epoch = string:lowercase(str:to_hexlist(crypto:strong_rand_bytes(16)))}),
    [ejabberd_hooks:add(Hook, Host, ?MODULE, Function, Priority) || {Hook, Function, Priority} <- hooks()],
    [ejabberd_hooks:add(Hook, global, ?MODULE, Function, Priority) || {Hook, Function, Priority} <- global_hooks()],
    gen_iq_handler:add_iq_handler(ejabberd_local, Host, ?NS_BRIDGE, ?MODULE, process_iq),
    [ejabberd_c2s:cast(Pid, {?MODULE, report})
     || {U, S, R} <- ejabberd_sm:get_vh_session_list(Host), Pid <- [ejabberd_sm:get_session_pid(U, S, R)],
        is_pid(Pid), node(Pid) == node()],
    erlang:send_after(?HELLO_DELAY, self(), hello),
    erlang:send_after(State#state.heartbeat * 1000, self(), heartbeat),
    erlang:send_after(?COPY_WINDOW, self(), forget),
    {ok, State}.

configured(Opts, State) ->
    Size = gen_mod:get_opt(queue_size, Opts),
    Component = gen_mod:get_opt(component, Opts),
    persistent_term:put({?MODULE, component, Component}, true),
    State#state{component = Component, heartbeat = gen_mod:get_opt(heartbeat, Opts),
                queue_size = Size, batch_max = max(1, min(?PAGE_MAX, Size div 100)),  % the queue drops whole stanzas
                queue_time = gen_mod:get_opt(queue_time, Opts)}.

%% The last stanza of the stream, if there is a link: the relay need not wait for a heartbeat that never comes.
terminate(_Reason, #state{host = Host, component = Component} = State) ->
    try flush(give(child(<<"end">>, []), false, emptied(State))) catch _:_ -> ok end,
    [ejabberd_hooks:delete(Hook, Host, ?MODULE, Function, Priority) || {Hook, Function, Priority} <- hooks()],
    gen_iq_handler:remove_iq_handler(ejabberd_local, Host, ?NS_BRIDGE),
    other_hosts(Host) == []
        andalso [ejabberd_hooks:delete(Hook, global, ?MODULE, Function, Priority) || {Hook, Function, Priority} <- global_hooks()],
    forget_component(Component, Host),
    persistent_term:erase({?MODULE, Host}).

other_hosts(Host) -> [Other || Other <- ejabberd_option:hosts(), Other /= Host, gen_mod:is_loaded(Other, ?MODULE)].

%% Unless it is that of another host.
forget_component(Component, Host) ->
    lists:member(Component, [option(Other, component) || Other <- other_hosts(Host)])
        orelse persistent_term:erase({?MODULE, component, Component}).

code_change(_OldVsn, State, _Extra) -> {ok, State}.

handle_call(_Request, _From, State) -> {reply, {error, badarg}, State}.

handle_cast({ack, _, _} = Ack, State) -> {noreply, handle(Ack, State)};
handle_cast(Msg, State) -> {noreply, flush(handle(Msg, emptied(State)))}.

%% Somebody has woken the process: now, or when the last time is long enough ago.
handle_info(woken, #state{emptied = Emptied, shared = #shared{counters = Counters}} = State) ->
    Now = erlang:monotonic_time(millisecond),
    case Emptied == undefined orelse Now - Emptied >= ?GATHER_TIME of
        true ->
            atomics:put(Counters, ?WOKEN, 0),  % before: a later entry wakes the process again
            Before = atomics:get(Counters, ?READ),
            State1 = flush(emptied(State)),
            %% Where there is much to read, nobody needs to wake the process for the next time.
            atomics:get(Counters, ?READ) - Before > 1 andalso atomics:exchange(Counters, ?WOKEN, 1) == 0
                andalso erlang:send_after(?GATHER_TIME, self(), woken),
            {noreply, State1#state{emptied = Now}};
        false ->
            erlang:send_after(Emptied + ?GATHER_TIME - Now, self(), woken),
            {noreply, State}
    end;
handle_info({'EXIT', Pid, Reason}, #state{lookups = Pid, host = Host} = State) ->
    ?ERROR_MSG("The lookups of ~ts ended: ~p", [Host, Reason]),
    {noreply, State#state{lookups = start_lookups(Host)}};
%% What a process wrote before it ended comes first.
handle_info(Info, State) -> {noreply, flush(handle_signal(Info, emptied(State)))}.

%% Takes the entries out of the inbox, in the order of their numbers; that is the order of writing, except for those that
%% were written at the same time. What was written because of an entry that is not among them is not among them either.
emptied(#state{late = Late, shared = #shared{counters = Counters}} = State) ->
    First = atomics:get(Counters, ?READ) + 1,
    Last = atomics:get(Counters, ?WRITTEN),
    State1 = entries(First, Last, lists:foldr(fun entry/2, State#state{late = [], node = node_attr(), wait = ?LOOKUP_WAIT}, Late)),
    atomics:put(Counters, ?READ, Last),
    counted(atomics:exchange(Counters, ?LOST, 0), State1).

entries(Number, Last, State) when Number > Last -> State;
entries(Number, Last, State) -> entries(Number + 1, Last, entry(Number, State)).

%% One that has its number is about to be in the inbox, unless its writer was killed at that moment.
entry(Number, #state{late = Late, shared = #shared{inbox = Inbox}} = State) ->
    case ets:take(Inbox, Number) of
        [{_, Msg}] -> handle_entry(Msg, State);
        [] -> State#state{late = lists:sublist([Number | Late], ?LATE_MAX)}
    end.

%% One entry that fails does not cost the queue.
handle_entry(Msg, State) ->
    try handle(Msg, State) catch Class:Reason:Stack ->
            ?ERROR_MSG("An entry was not understood:~n** ~ts", [misc:format_exception(2, Class, Reason, Stack)]),
            State
    end.

%% A number that is never seen: the relay asks, and is told how many.
counted(0, State) -> State;
counted(Lost, State) ->
    ?WARNING_MSG("~B messages came while ~B waited to be reported: they are not", [Lost, ?INBOX_MAX]),
    #state{seq = Last, dropped = Dropped} = State1 = flush(State),
    State1#state{seq = Last + 1, dropped = Dropped + Lost, dropped_seq = Last + 1}.

handle({session, Id, Pid, User, Attrs}, State) -> session(Id, Pid, User, Attrs, State);
handle({closed, Id, JID, Messages}, State) -> closed(Id, JID, Messages, State);
handle({moved, Id}, #state{sessions = Sessions} = State) ->
    case Sessions of
        #{Id := #session{ref = Ref}} ->
            demonitor(Ref, [flush]),
            State#state{refs = maps:remove(Ref, State#state.refs)};
        _ -> State
    end;
handle({plain, Time, FromAddress, ToAddress, Type, Id, Lang, Text, Meanings, StanzaId, IsFromClient}, State) ->
    From = to_jid(FromAddress),
    To = to_jid(ToAddress),
    Message = #message{from = From, to = To, type = Type, id = Id, body = [#text{lang = Lang, data = Text}],
                       meta = #{stanza_id => StanzaId}},
    State1 = case IsFromClient of
                 true -> answered(Time, From, To, State);
                 false -> State
             end,
    case found(Message, Meanings, To) of
        none -> State1;
        Found -> arrived(Time, From, To, From, Type, false, Found, State1)
    end;
handle({arrived, Time, From, To, Author, Type, IsEmpty, Found}, State) -> arrived(Time, From, To, Author, Type, IsEmpty, Found, State);
handle({subscription, Time, From, To}, State) -> subscription(Time, From, To, State);
handle({rings, Time, From, To, Sid, Media, IQ}, State) -> rings(Time, From, To, Sid, Media, IQ, State);
handle({rings_no_more, Account, With, Sid, Ended}, State) -> rings_no_more(Account, With, Sid, Ended, State);
handle({taken, JID, To, Call, Ended, Type, Id}, State) -> taken_call(JID, To, Call, Ended, Type, Id, State);
handle({reads, JID, With, Time}, State) -> displayed(JID, With, Time, State);
handle({removed, User, Host, Time}, #state{known = Known} = State) ->
    ets:delete(Known, User),
    State1 = forget_account(User, State),
    give(child(<<"account-removed">>, [{<<"jid">>, encode({User, Host, <<>>})}, {<<"ts">>, Time}]), true, State1);
handle({blocked, Account, Blocked}, State) ->
    give(child(<<"blocked">>, [{<<"account">>, Account}, {<<"jid">>, Blocked}, {<<"ts">>, milliseconds()}]), true, State);
handle({unacked, JID, Messages}, State) -> give_unacked(JID, Messages, State);
handle({enters, User, Room}, State) -> in_rooms(User, Room, fun(none) -> #occupant{}; (Occupant) -> Occupant end, State);
handle({occupant, User, Room, none}, State) -> in_rooms(User, Room, fun(_) -> none end, State);
handle({occupant, User, Room, #occupant{} = New}, #state{node = Node} = State) ->
    %% Anybody can say that this is you: what was not asked is no room. In a cluster another node may have heard the asking.
    was_in_room(User, Room, New,
                in_rooms(User, Room,
                         fun(none) when Node == [] -> none;
                            (#occupant{nick = Nick, history = History}) when Nick /= none -> New#occupant{history = History};
                            (_) -> New#occupant{history = seconds() + ?HISTORY_TIME}
                         end, State));
handle({history_over, User, Room}, State) ->
    in_rooms(User, Room, fun(none) -> none; (Occupant) -> Occupant#occupant{history = over} end, State);
handle({directed, User, To, IsAvailable}, State) -> directed(User, To, IsAvailable, State);
handle({wrote, Account, Room, Id, Text}, State) -> remember({wrote, Account, Room, Id}, Text, State);
handle({forget_name, User, Peer}, #state{answers = Answers} = State) ->
    [ets:delete(Answers, {Kind, User, Peer}) || Kind <- [contact, room]],
    State;
handle({check_ban, User}, State) -> check_ban(User, State);
handle({account_changed, User}, State) ->
    erlang:send_after(2000, self(), {check_ban, User}),  % the end of a ban is stored after it
    check_ban(User, State);
handle({snapshot, Link, IQ, El}, State) -> snapshot(Link, IQ, El, State);
handle({ack, Epoch, Seq}, #state{epoch = Epoch, link = Link, in_flight = Before} = State) ->
    case release(position(Seq, State), State) of
        #state{in_flight = 0} = State1 when Link == undefined, Before > 0 -> say_hello(flush(no_longer_stuck(State1)));
        State1 -> State1
    end;
handle(hello, State) -> hello(State);
handle({reload, Opts}, #state{host = Host, component = Component} = State) ->
    State1 = configured(Opts, State),
    State1#state.component == Component orelse forget_component(Component, Host),
    State1;
handle(_Msg, State) -> State.

handle_signal(heartbeat, #state{heartbeat = Seconds, known = Known, answers = Answers} = State) ->
    erlang:send_after(Seconds * 1000, self(), heartbeat),
    ets:info(Known, size) > ?KNOWN_MAX andalso ets:delete_all_objects(Known),
    ets:info(Answers, size) > ?NAMES_MAX andalso ets:delete_all_objects(Answers),
    beat(enforce_bound(State));
handle_signal(forget, State) ->
    erlang:send_after(?COPY_WINDOW, self(), forget),
    State#state{seen = #{}, seen_before = State#state.seen};
handle_signal(hello, State) -> hello(State);
handle_signal(check_bans, State) -> check_bans(State);
handle_signal({answer, Key, Answer}, State) -> answer(Key, Answer, State);
handle_signal({check_ban, User}, State) -> check_ban(User, State);
handle_signal({'DOWN', Ref, process, _Pid, _Reason}, #state{link = {_, Ref}} = State) -> State#state{link = undefined};
handle_signal({'DOWN', Ref, process, _Pid, _Reason}, #state{refs = Refs} = State) ->
    case Refs of
        #{Ref := Id} -> closed(Id, none, [], State);
        _ -> State
    end;
handle_signal(_Info, State) -> State.

%% Loaded beside a link that is already up: say so, and the relay will ask.
hello(#state{link = undefined} = State) -> say_hello(flush(State));
hello(State) -> State.

say_hello(#state{seq = Seq, component = Component} = State) ->
    case ejabberd_router:is_my_route(Component) of
        true ->
            ejabberd_router:route(message(events([{<<"seq">>, integer_to_binary(Seq + 1)}], [heartbeat_child(State)], State), State)),
            State#state{seq = Seq + 1};
        false -> State
    end.

%%% Sessions -----------------------------------------------------------------------------------------------------------

session(Id, Pid, User, Attrs, #state{sessions = Sessions, refs = Refs} = State) ->
    Now = milliseconds(),
    {Session, Refs1} =
        case Sessions of
            #{Id := #session{pid = Pid, ref = Ref} = Old} when is_map_key(Ref, Refs) -> {Old, Refs};
            #{Id := #session{ref = Ref} = Old} ->
                demonitor(Ref, [flush]),
                New = monitor(process, Pid),
                {Old#session{pid = Pid, ref = New}, (maps:remove(Ref, Refs))#{New => Id}};
            _ ->
                New = monitor(process, Pid),
                {#session{attr = [], since = Now, pid = Pid, ref = New, user = User}, Refs#{New => Id}}
        end,
    case Session#session.attr of
        Attrs -> State#state{sessions = Sessions#{Id => Session}, refs = Refs1};
        Before ->
            Session1 = Session#session{attr = Attrs, since = Now},
            State1 = hibernates(User, lists:member({<<"state">>, <<"hibernating">>}, Attrs), State),
            State2 = give(session_child(Session1), false, State1#state{sessions = Sessions#{Id => Session1}, refs = Refs1}),
            case Before == [] andalso is_map_key(element(1, User), State2#state.suspended) of
                true -> check_ban(element(1, User), State2);
                false -> State2
            end
    end.

hibernates(User, true, #state{hibernating = Hibernating} = State) -> State#state{hibernating = Hibernating#{User => true}};
hibernates(User, false, #state{hibernating = Hibernating} = State) -> State#state{hibernating = maps:remove(User, Hibernating)}.

closed(Id, JID, Messages, #state{sessions = Sessions} = State) ->
    case maps:take(Id, Sessions) of
        {#session{attr = Attrs, ref = Ref, user = User}, Rest} ->
            demonitor(Ref, [flush]),
            Gone = [{<<"state">>, <<"closed">>}, {<<"available">>, <<"false">>}, {<<"priority">>, <<"0">>},
                    {<<"ts">>, milliseconds()} | [Attr || {Name, _} = Attr <- Attrs, Name == <<"jid">> orelse Name == <<"sid">>]],
            State1 = give(child(<<"session">>, Gone), false,
                          State#state{sessions = Rest, refs = maps:remove(Ref, State#state.refs)}),
            #state{rooms = Rooms, directed = Directed} = State2 = hibernates(User, false, give_unacked(JID, Messages, State1)),
            State2#state{rooms = without_session(User, Rooms), directed = without_session(User, Directed)};
        error -> State
    end.

session_child(#session{attr = Attrs, since = Since}) -> child(<<"session">>, [{<<"ts">>, Since} | Attrs]).

%%% Rooms and directed presence ----------------------------------------------------------------------------------------

%% The rooms of a session: no nickname, as long as the room has not said it.
in_rooms(User, Room, Change, #state{rooms = Rooms} = State) ->
    State#state{rooms = of_session(User, fun(Of) -> changed(Room, Change(maps:get(Room, Of, none)), Of) end, Rooms)}.

%% What an account was in a room is known when it is there no more: a room may write to it all the same (MUC/Sub, offline delivery).
was_in_room({User, Resource}, Room, Occupant, #state{rooms = Rooms, places = Places, places_before = Before} = State) ->
    Key = {User, Room},
    case Rooms of
        #{User := #{Resource := #{Room := _}}} when is_map_key(Key, Places); map_size(Places) < ?LAST_PLACES_MAX ->
            State#state{places = Places#{Key => Occupant}, places_before = maps:remove(Key, Before)};
        #{User := #{Resource := #{Room := _}}} -> State#state{places = #{Key => Occupant}, places_before = maps:remove(Key, Places)};
        _ -> State
    end.

%% The nickname may be another's now: whoever has it is not the account.
last_place(User, Room, #state{places = Places, places_before = Before}) ->
    case maps:get({User, Room}, Places, maps:get({User, Room}, Before, none)) of
        none -> [];
        Occupant -> [Occupant]
    end.

directed(User, To, IsAvailable, #state{directed = Directed} = State) ->
    State#state{directed = of_session(User, fun(Of) -> changed(To, IsAvailable andalso true, Of) end, Directed)}.

changed(Key, Value, Of) when Value == none; Value == false -> maps:remove(Key, Of);
changed(Key, Value, Of) when is_map_key(Key, Of); map_size(Of) < ?ROOMS_MAX -> Of#{Key => Value};
changed(_, _, Of) -> Of.

of_session({User, Resource}, Change, Users) ->
    Resources = maps:get(User, Users, #{}),
    case Change(maps:get(Resource, Resources, #{})) of
        Of when map_size(Of) == 0 -> without_session({User, Resource}, Users);
        Of -> Users#{User => Resources#{Resource => Of}}
    end.

without_session({User, Resource}, Users) ->
    case maps:remove(Resource, maps:get(User, Users, #{})) of
        Resources when map_size(Resources) == 0 -> maps:remove(User, Users);
        Resources -> Users#{User => Resources}
    end.

%% What the sessions of an account are in that room.
occupants(User, Room, #state{rooms = Rooms}) ->
    case Rooms of
        #{User := Resources} -> [Occupant || #{Room := Occupant} <- maps:values(Resources)];
        _ -> []
    end.

is_in_room(User, Room, State) -> lists:any(fun(#occupant{nick = Nick}) -> Nick /= none end, occupants(User, Room, State)).

%% The room has not yet sent its subject to this session, so it is still telling what was said before.
is_telling_history(#jid{luser = User, lresource = Resource}, Room, #state{rooms = Rooms}) ->
    case Rooms of
        #{User := #{Resource := #{Room := #occupant{history = Until}}}} when is_integer(Until) -> seconds() < Until;
        _ -> false
    end.

%%% Messages -----------------------------------------------------------------------------------------------------------

arrived(Time, From, To, Author, Type, IsEmpty, #found{attrs = Attrs} = Found, State) ->
    case is_wanted(From, To, Type, IsEmpty, Found, State) of
        true ->
            ets:delete(State#state.known, conversation(To, case Type of groupchat -> jid:remove_resource(From); _ -> From end, State)),
            Found1 = Found#found{attrs = [{<<"ts">>, integer_to_binary(Time)} | Attrs]},
            case is_repeated(To, Author, Found1, State) of
                {true, State1} -> State1;
                {false, State1} -> give_message(Type, Author, To, Found1, check_ban_first(To#jid.luser, State1))
            end;
        false -> State
    end.

%% Whether the account exists and the server delivers what that sender sends; whether it is new to a room that invites,
%% and the room is past its history and does not speak for itself.
is_wanted(From, #jid{luser = User, lserver = Host} = To, Type, IsEmpty, #found{inviter = Inviter, room = Room}, State) ->
    Known = State#state.known,
    (ets:member(Known, User) orelse ejabberd_auth:user_exists(User, Host) andalso ets:insert(Known, {User}))
        andalso case {Type, Room} of
                    {groupchat, _} -> not is_telling_history(To, bare(From), State);
                    {_, undefined} -> From#jid.lresource /= <<>> orelse not is_in_room(User, bare(From), State);
                    _ -> not is_in_room(User, Room, State)
                end
        andalso is_allowed(#message{from = From, to = To, type = Type})
        andalso (Inviter == undefined orelse is_allowed(#message{from = Inviter, to = To, type = Type}))
        andalso not is_refused(From, To, IsEmpty, Inviter, State).

is_allowed(Stanza) ->
    #jid{lserver = Host} = To = xmpp:get_to(Stanza),
    allow == ejabberd_hooks:run_fold(privacy_check_packet, Host, allow, [To, Stanza, in]).

%% mod_block_strangers decides after us, in the process of the client or before the message is stored: the same question
%% with the same answer. Since ejabberd 26.02 it asks for the inviter instead of the room.
is_refused(_From, _To, true, _Inviter, _State) -> false;
is_refused(From, #jid{luser = User, lserver = Host} = To, false, Inviter, #state{directed = Directed}) ->
    gen_mod:is_loaded(Host, mod_block_strangers) andalso gen_mod:get_module_opt(Host, mod_block_strangers, drop)
        andalso not lists:any(fun(Of) -> sent_presence(From, Of) end, maps:values(maps:get(User, Directed, #{})))
        andalso not is_let_in(From, Host) andalso is_stranger(stranger(From, Inviter, Host), To).

stranger(From, undefined, _) -> From;
stranger(From, Inviter, Host) ->
    case version() >= [26, 2] of
        false -> From;
        true -> case is_let_in(Inviter, Host) of
                    true -> none;
                    false -> Inviter
                end
    end.

is_stranger(none, _) -> false;
is_stranger(#jid{luser = User, lserver = Server} = From, #jid{lserver = Host} = To) ->
    not mod_roster:is_subscribed(From, To)
        andalso not (User /= <<>> andalso gen_mod:get_module_opt(Host, mod_block_strangers, allow_transports)
                     andalso mod_roster:is_subscribed(jid:make(Server), To)).

is_let_in(#jid{luser = User, lserver = Server} = From, Host) ->
    acl:match_rule(Host, gen_mod:get_module_opt(Host, mod_block_strangers, access), From) == allow
        orelse ((User == <<>> orelse gen_mod:get_module_opt(Host, mod_block_strangers, allow_local_users))
                andalso ejabberd_router:is_my_host(Server)).

%% To the address itself, to its bare JID, or to another resource of it.
sent_presence(#jid{luser = User, lserver = Server}, Of) ->
    lists:any(fun({ToUser, ToServer, _}) -> ToUser == User andalso ToServer == Server end, maps:keys(Of)).

version() ->
    {ok, Version} = application:get_key(ejabberd, vsn),
    [try list_to_integer(Part) catch _:_ -> 0 end || Part <- string:lexemes(Version, ".-")].

%% The same stanza again: a copy for another resource, or one that the sender's client sent anew. A call and an
%% invitation have ids of their own.
is_repeated(To, Author, #found{event = Event, class = Class, attrs = Attrs, bodies = Bodies, room = Room} = Found, State) ->
    Id = hd([Value || Name <- [<<"origin-id">>, <<"id">>], {_, Value} <- [lists:keyfind(Name, 1, Attrs)]] ++ [none]),
    Content = {Bodies, lists:keyfind(<<"file">>, 1, Attrs), lists:keyfind(<<"of">>, 1, Attrs)},
    case Class of
        call -> is_known(bare(Author), To, {call, proplists:get_value(<<"call">>, Attrs)}, none, ?REPEAT_TIME, State);
        'call-ended' -> has_ended(bare(Author), To, proplists:get_value(<<"call">>, Attrs), Found#found.migrated, State);
        invite -> is_known(<<>>, To, {invite, Room}, none, ?INVITE_TIME, State);
        _ when Id == none -> copy(Author, To, {Event, Class, Content}, State);
        _ -> is_known(encode(Author), To, {Event, Class, Id}, Content, ?REPEAT_TIME, State)
    end.

%% A call ends once, by the peer or by a device of the account. What the account took goes on under another id where the
%% peer changes the device.
has_ended(With, To, Call, Migrated, State) ->
    case is_noted(<<>>, To, {ended, Call}, State) of
        true ->
            Migrated == <<>> orelse is_known(With, To, {call, Migrated}, none, ?REPEAT_TIME, State),
            {true, State};
        false -> is_known(With, To, {ended, Call}, none, ?REPEAT_TIME, State)
    end.

taken_call(JID, To, Call, Ended, Type, Id, State) ->
    case is_known(<<>>, JID, {ended, Call}, none, ?REPEAT_TIME, State) of
        {true, State1} -> State1;
        {false, State1} -> give(ended_child(JID, To, Call, Ended, Type, Id), true, State1)
    end.

ended_child(Account, With, Call, Ended, Type, Id) ->
    child(<<"message">>, [{<<"to">>, bare(Account)}, {<<"from">>, bare(With)}, {<<"class">>, <<"call-ended">>}, {<<"call">>, Call},
                          {<<"ended">>, Ended}, {<<"ts">>, milliseconds()}, {<<"type">>, type(Type)} | optional(<<"id">>, Id)]).

is_known(From, To, What, Content, Time, #state{repeats = Repeats} = State) ->
    Key = note_key(From, To, What),
    Hash = erlang:phash2(Content, 16#100000000),
    case is_noted(Key, Hash, Time, State) of
        true -> {true, State};
        false ->
            ets:insert(Repeats, {Key, Hash, seconds()}),
            {false, turned(State)}
    end.

is_noted(From, #jid{} = To, What, State) ->
    is_noted(note_key(From, To, What), erlang:phash2(none, 16#100000000), ?REPEAT_TIME, State);
is_noted(Key, Hash, Time, #state{repeats = Repeats, repeats_before = Before}) ->
    Now = seconds(),
    lists:any(fun(Table) ->
                      case ets:lookup(Table, Key) of
                          [{_, Hash, At}] -> Now - At < Time;
                          _ -> false
                      end
              end, [Repeats, Before]).

%% A number of 54 bits: it is copied and compared at no cost.
note_key(From, #jid{luser = User}, What) ->
    erlang:phash2({User, From, What}, 1 bsl 27) bsl 27 bor erlang:phash2({What, User, From, key}, 1 bsl 27).

%% Two tables, each for as long as a repetition counts: the older is emptied when the newer is old or full.
turned(#state{repeats = Repeats, repeats_before = Before, repeats_since = Since} = State) ->
    Now = seconds(),
    case Now - Since >= ?REPEAT_TIME orelse ets:info(Repeats, size) >= ?REPEATS_MAX of
        true ->
            ets:delete_all_objects(Before),
            State#state{repeats = Before, repeats_before = Repeats, repeats_since = Now};
        false -> State
    end.

%% Without an id: a room sends one stanza to every joined resource of the account, and a sender may do the same. The same
%% words to the same JID again are a new message.
copy(_Author, #jid{lresource = <<>>}, _What, State) -> {false, State};
copy(Author, JID, What, State) ->
    Key = erlang:md5(term_to_binary({JID#jid.luser, encode(Author), What})),
    To = JID#jid.lresource,
    case recall(Key, State) of
        Seen when is_list(Seen), length(Seen) < ?COPIES_MAX ->
            case lists:member(To, Seen) of
                false -> {true, remember(Key, [To | Seen], State)};
                true -> {false, remember(Key, [To], State)}
            end;
        _ -> {false, remember(Key, [To], State)}
    end.

recall(Key, #state{seen = Seen, seen_before = Before}) -> maps:get(Key, Seen, maps:get(Key, Before, none)).

remember(Key, Value, #state{seen = Seen} = State) when map_size(Seen) >= ?SEEN_MAX ->
    State#state{seen = #{Key => Value}, seen_before = Seen};
remember(Key, Value, #state{seen = Seen} = State) -> State#state{seen = Seen#{Key => Value}}.

%% Who writes to another account has read what that one wrote. Only what a client sent carries its address.
answered(Time, #jid{luser = User, lserver = Host} = From, #jid{luser = Other} = To, #state{host = Host} = State) when User /= Other ->
    displayed(From, To, integer_to_binary(Time), State);
answered(_Time, _From, _To, State) -> State.

%% Once: again only after something new has come. In a cluster that may have come by another node.
displayed(JID, With, Time, #state{known = Known, node = Node} = State) ->
    {_, Address} = Conversation = conversation(JID, With, State),
    case ets:insert_new(Known, {Conversation}) orelse Node /= [] of
        true -> give(child(<<"displayed">>, [{<<"account">>, bare(JID)}, {<<"with">>, Address}, {<<"ts">>, Time}]), true, State);
        false -> State
    end.

%% With a contact or a room; a private message of a room is a conversation with the occupant.
conversation(#jid{luser = User}, #jid{lresource = Resource} = With, State) ->
    Bare = bare(With),
    case Resource /= <<>> andalso is_in_room(User, Bare, State) of
        true -> {User, encode(With)};
        false -> {User, Bare}
    end.

give_unacked(JID, Messages, State) ->
    lists:foldl(fun({Type, From, Found}, Acc) -> give_message(Type, From, JID, Found, Acc) end, State, Messages).

%% The event itself. What it says beyond the stanza: the nickname of the account and who is meant, whether it is a private
%% message of a room, and the name that the account knows.
give_message(groupchat, From, #jid{luser = User} = To, Found, State) ->
    Room = bare(From),
    {Occupants, Own} = case [Occupant || #occupant{nick = Nick} = Occupant <- occupants(User, Room, State), Nick /= none] of
                           [] ->
                               Last = last_place(User, Room, State),
                               {Last, [Occupant#occupant{nick = none} || Occupant <- Last]};
                           Present -> {Present, Present}
                       end,
    case is_own(From, To, Room, Own, Found, State) of
        true -> State;
        false when Found#found.event == retraction -> give_event(groupchat, From, To, [], Found, State);
        false ->
            {IsMention, State1} = is_mention(Found, From, To, Room, Occupants, State),
            Nick = case Found#found.nick of
                       undefined -> From#jid.lresource;
                       Name -> Name
                   end,
            More = [{<<"mention">>, <<"true">>} || IsMention] ++ [{<<"room">>, Room} | optional(<<"nick">>, Nick)],
            give_event(groupchat, From, To, More, Found, State1)
    end;
give_message(Type, #jid{lresource = Resource} = From, #jid{luser = User} = To, Found, State) ->
    IsPrivate = Resource /= <<>> andalso is_in_room(User, bare(From), State),
    give_event(Type, From, To, [{<<"private">>, <<"true">>} || IsPrivate], Found, State).

give_event(Type, From, To, More, #found{event = Event, class = Class, attrs = Attrs, bodies = Bodies, room = Room}, State) ->
    Address = bare(From),
    Known = [{<<"to">>, bare(To)}, {<<"from">>, encode(From)}, {<<"type">>, type(Type)}],
    case Event of
        retraction -> give(child(<<"retraction">>, Known ++ More ++ Attrs), true, State);
        message ->
            Kind = if Type == groupchat; More /= []; Room == Address -> room; true -> contact end,
            {Name, State1} = name(Kind, To#jid.luser, Address, State),
            give(message_child(Known ++ [{<<"class">>, atom_to_binary(Class, utf8)} | More] ++ Attrs ++ optional(<<"name">>, Name), Bodies),
                 true, State1)
    end.

subscription(Time, From, To, State) ->
    give(child(<<"message">>, [{<<"to">>, bare(To)}, {<<"from">>, bare(From)}, {<<"class">>, <<"subscribe">>},
                               {<<"ts">>, integer_to_binary(Time)}]), true, State).

%% XEP-0166 without XEP-0353: the request reaches a session that hibernates, and rings nowhere.
rings(Time, From, #jid{luser = User} = To, Sid, Media, IQ, #state{hibernating = Hibernating, ringing = Ringing} = State) ->
    case is_map_key(user(To), Hibernating) andalso not is_map_key({User, Sid}, Ringing) andalso map_size(Ringing) < ?RINGING_MAX
        andalso bare(From) /= bare(To) andalso is_allowed(IQ) of
        true ->
            Found = #found{class = call, attrs = [{<<"ts">>, integer_to_binary(Time)}, {<<"call">>, Sid}, {<<"media">>, Media}]},
            case is_repeated(To, From, Found, State) of
                {true, State1} -> State1;
                {false, State1} -> give_message(chat, From, To, Found, State1#state{ringing = Ringing#{{User, Sid} => From}})
            end;
        false -> State
    end.

rings_no_more(#jid{luser = User} = Account, With, Sid, Ended, #state{ringing = Ringing} = State) ->
    case Ringing of
        #{{User, Sid} := Caller} ->
            State1 = State#state{ringing = maps:remove({User, Sid}, Ringing)},
            case bare(Caller) == bare(With) of
                true -> taken_call(Account, With, Sid, Ended, chat, <<>>, State1);
                false -> State
            end;
        _ -> State
    end.

%%% Groups -------------------------------------------------------------------------------------------------------------

%% What the account wrote itself, on whichever device: by nickname, by the room's id of the account, by the id of the message.
is_own(From, To, Room, Occupants, #found{attrs = Attrs, bodies = Bodies, occupant = OccupantId, author = Author}, State) ->
    lists:any(fun(#occupant{nick = Nick, id = Id}) ->
                      Nick == From#jid.lresource orelse (Id /= <<>> andalso Id == OccupantId)
              end, Occupants)
        orelse (Author /= undefined andalso bare(Author) == bare(To))
        orelse lists:any(fun(Name) ->
                                 case lists:keyfind(Name, 1, Attrs) of
                                     {_, Id} -> recall({wrote, bare(To), Room, Id}, State) == erlang:phash2(Bodies);
                                     false -> false
                                 end
                         end, [<<"id">>, <<"origin-id">>]).

%% An explicit mention, else an explicit wish not to be one, else whom the message refers to, else the nickname in the text.
is_mention(#found{points = Points, words = Words}, From, To, Room, Occupants, State) ->
    Nicks = case lists:usort([Nick || #occupant{nick = Nick} <- Occupants]) of
                [] -> [To#jid.luser];  % the room knows another, but the name of the account is what most are called
                Known -> Known
            end,
    Addresses = [Room | [<<Room/binary, $/, Nick/binary>> || Nick <- Nicks]],
    IsMe = fun(Whom) -> is_me(Whom, Addresses, Occupants, To) end,
    case {lists:any(fun({said, Whom}) -> IsMe(Whom); (_) -> false end, Points),
          lists:any(fun({quiet, Whom}) -> IsMe(Whom); (_) -> false end, Points)} of
        {true, _} -> {true, State};
        {false, true} -> {false, State};
        _ -> case From#jid.lresource /= <<>> andalso lists:any(IsMe, Points) of
                 true -> {true, State};
                 false -> has_nick(Nicks, Words, State)
             end
    end.

is_me(everybody, _, _, _) -> true;
is_me({reply, Address}, [_ | Addresses], Occupants, To) -> is_me({jid, Address}, Addresses, Occupants, To);  % to the room is to nobody
is_me({occupant, Id}, _, Occupants, _) -> lists:any(fun(#occupant{id = Own}) -> Own == Id end, Occupants);
is_me({jid, Address}, Addresses, _, To) ->
    lists:member(Address, Addresses) orelse case decode_jid(Address) of
                                                none -> false;
                                                JID -> lists:member(encode(JID), Addresses) orelse bare(JID) == bare(To)
                                            end;
is_me(_, _, _, _) -> false.

%% The text of a room comes once for each occupant, one after the other: it is put into lower case once.
has_nick([], _, State) -> {false, State};
has_nick(_, <<>>, State) -> {false, State};
has_nick(Nicks, Words, #state{lowered = {Words, Lower}} = State) ->
    {lists:any(fun(Nick) -> has_word(Lower, lower(Nick)) end, Nicks), State};
has_nick(Nicks, Words, State) -> has_nick(Nicks, Words, State#state{lowered = {Words, lower(Words)}}).

lower(Text) ->
    case is_ascii(Text) of
        true -> << <<(if C >= $A, C =< $Z -> C + 32; true -> C end)>> || <<C>> <= Text>>;
        false -> string:casefold(Text)
    end.

is_ascii(<<C, Rest/binary>>) when C < 128 -> is_ascii(Rest);
is_ascii(Rest) -> Rest == <<>>.

%% As a word of its own. A nickname of one character counts only as it is written to address somebody.
has_word(Text, Word) ->
    IsShort = string:length(Word) == 1,
    lists:any(fun({At, Length}) ->
                      Before = character_before(Text, At),
                      After = character_at(Text, At + Length),
                      not (is_letter(character_at(Word, 0)) andalso is_letter(Before))
                          andalso not (is_letter(character_before(Word, Length)) andalso is_letter(After))
                          andalso (not IsShort orelse Before == $@ orelse After == $: orelse After == $,)
              end, lists:sublist(binary:matches(Text, Word), ?WORDS_MAX)).

character_before(_, 0) -> none;
character_before(Text, At) -> character_at(Text, start_of(Text, At - 1)).

character_at(Text, At) ->
    case Text of
        <<_:At/binary, C/utf8, _/binary>> -> C;
        _ -> none
    end.

%% A letter, digit or accent of a script that puts spaces between words.
is_letter(none) -> false;
is_letter(C) when C < 128 -> (C >= $a andalso C =< $z) orelse (C >= $0 andalso C =< $9) orelse (C >= $A andalso C =< $Z);
is_letter(C) when C >= 16#0E00, C =< 16#0EFF; C >= 16#1000, C =< 16#109F; C >= 16#1780, C =< 16#17FF;  % Thai, Lao, Burmese, Khmer
                  C >= 16#1100, C =< 16#11FF; C >= 16#A960, C =< 16#A97F; C >= 16#AC00, C =< 16#D7FF;  % Korean: particles follow at once
                  C >= 16#2E80, C =< 16#A4CF; C >= 16#F900, C =< 16#FAFF; C >= 16#20000, C =< 16#3FFFF -> false;  % Chinese, Japanese, Yi
is_letter(C) -> re:run(<<C/utf8>>, "^[\\p{L}\\p{N}\\p{M}]", [unicode, {capture, none}]) == match.

%%% Names and bans: what has to be looked up ---------------------------------------------------------------------------

%% {contact or room, User, Address} or {ban, User}. The answer is kept; the first message waits for it a little, together
%% with all others of its time, and goes without a name if it takes longer.
name(Kind, User, Address, State) ->
    case looked_up({Kind, User, Address}, ?NAME_TIME, State) of
        {{ok, Name}, State1} -> {Name, State1};
        {none, State1} -> {<<>>, State1}
    end.

looked_up(Key, Time, #state{answers = Answers, wait = Wait} = State) ->
    Now = seconds(),
    case ets:lookup(Answers, Key) of
        [{_, Answer, At}] when Now - At < Time -> {Answer, State};
        Old ->
            case ask(Key, State) of
                false -> {none, State};
                true when Wait == 0 -> {old(Old), State};
                true ->
                    Begun = erlang:monotonic_time(millisecond),
                    State1 = receive {answer, Key, Answer} -> answer(Key, Answer, State) after Wait -> State end,
                    State2 = State1#state{wait = max(0, Wait - (erlang:monotonic_time(millisecond) - Begun))},
                    case ets:lookup(Answers, Key) of
                        [{_, New, _}] -> {New, State2};
                        [] -> {none, State2}
                    end
            end
    end.

old([{_, Answer, _}]) -> Answer;
old([]) -> none.

%% Not again while the answer is under way.
ask(Key, #state{lookups = Pid, answers = Answers}) ->
    case process_info(Pid, message_queue_len) of
        {_, Length} when Length < ?LOOKUPS_MAX ->
            Before = case ets:lookup(Answers, Key) of
                         [{_, Answer, _}] -> Answer;
                         [] -> none
                     end,
            ets:insert(Answers, {Key, Before, seconds()}),
            Pid ! {ask, Key},
            true;
        _ -> false
    end.

answer(Key, Answer, #state{answers = Answers} = State) ->
    ets:insert(Answers, {Key, {ok, Answer}, seconds()}),
    case Key of
        {ban, User} -> suspended(User, Answer, State);
        _ -> State
    end.

forget_account(User, #state{suspended = Suspended, answers = Answers, places = Places, places_before = Before} = State) ->
    IsOther = fun({Of, _}, _) -> Of /= User end,
    ets:match_delete(Answers, {{'_', User, '_'}, '_', '_'}),
    ets:delete(Answers, {ban, User}),
    State#state{suspended = maps:remove(User, Suspended), places = maps:filter(IsOther, Places),
                places_before = maps:filter(IsOther, Before)}.

%% ejabberd 24.06 and later keep a ban with the account; before, a ban is nothing but another password.
check_ban_first(User, State) ->
    case can_ban() of
        true ->
            {_, State1} = looked_up({ban, User}, ?BAN_TIME, State),
            State1;
        false -> State
    end.

check_ban(User, State) ->
    can_ban() andalso ask({ban, User}, State),
    State.

%% Nobody says that a ban is over: while there are any, some are looked up again and again.
check_bans(#state{suspended = Suspended} = State) when map_size(Suspended) == 0 ->
    State#state{suspended_turn = [], watches_bans = false};
check_bans(#state{suspended = Suspended, suspended_turn = []} = State) ->
    check_bans(State#state{suspended_turn = maps:keys(Suspended)});
check_bans(#state{suspended_turn = Turn} = State) ->
    erlang:send_after(?BAN_CHECK, self(), check_bans),
    {Now, Later} = lists:split(min(?BANS_AT_ONCE, length(Turn)), Turn),
    lists:foldl(fun check_ban/2, State#state{suspended_turn = Later}, Now).

can_ban() -> erlang:function_exported(mod_admin_extra, get_ban_details, 2).

suspended(User, banned, #state{suspended = Suspended} = State) when not is_map_key(User, Suspended) ->
    State#state.watches_bans orelse erlang:send_after(?BAN_CHECK, self(), check_bans),
    give(account_child(<<"account-disabled">>, User, State), true,
         State#state{suspended = Suspended#{User => true}, watches_bans = true});
suspended(_User, unknown, State) -> State;
suspended(User, Answer, #state{suspended = Suspended, known = Known} = State) when Answer /= banned ->
    %% One whose ban ended while the module was not there is reported too, once.
    case is_map_key(User, Suspended) orelse (Answer == pardoned andalso ets:insert_new(Known, {{pardoned, User}})) of
        true -> give(account_child(<<"account-enabled">>, User, State), true, State#state{suspended = maps:remove(User, Suspended)});
        false -> State
    end;
suspended(_, _, State) -> State.

account_child(Name, User, #state{host = Host}) -> child(Name, [{<<"jid">>, encode({User, Host, <<>>})}, {<<"ts">>, milliseconds()}]).

start_lookups(Host) -> proc_lib:spawn_link(?MODULE, lookups, [self(), Host]).

%% Runs beside the process of the host and ends with it.
lookups(Parent, Host) ->
    receive
        {ask, Key} ->
            Parent ! {answer, Key, try look_up(Key, Host) catch _:_ -> nothing(Key) end},
            lookups(Parent, Host);
        _ -> lookups(Parent, Host)
    end.

nothing({ban, _}) -> unknown;
nothing(_) -> <<>>.

%% Whether it is banned; "pardoned": it was.
look_up({ban, User}, Host) ->
    Module = mod_admin_extra,
    case lists:keyfind("bandate", 1, Module:get_ban_details(User, Host)) of
        {_, Date} when Date /= <<>>, Date /= "" -> banned;
        _ ->
            Empty = #xmlel{name = <<"banned">>, attrs = [{<<"xmlns">>, <<"jabber:ejabberd:banned">>}]},
            case gen_mod:is_loaded(Host, mod_private)
                andalso mod_private:get_data(User, Host, [{<<"jabber:ejabberd:banned">>, Empty#xmlel{name = <<"none">>}}]) of
                [#xmlel{name = <<"banned">>}] -> pardoned;
                _ -> never
            end
    end;
look_up({contact, User, Address}, Host) -> contact_name(User, Address, Host);
look_up({room, User, Address}, Host) ->
    Room = jid:decode(Address),
    first_name([fun() -> bookmark(User, Address, Host) end, fun() -> room_name(Room) end, fun() -> contact_name(User, Address, Host) end]).

first_name([]) -> <<>>;
first_name([Look | Rest]) ->
    case try Look() catch _:_ -> <<>> end of
        <<>> -> first_name(Rest);
        Name -> Name
    end.

%% Since ejabberd 23.04 a request that the account has not answered is an item too, with the name that the stranger gave.
contact_name(User, Address, Host) ->
    LJID = jid:tolower(jid:decode(Address)),
    case gen_mod:is_loaded(Host, mod_roster)
        andalso [shown_name(Item#roster.name) || #roster{jid = JID} = Item <- mod_roster:get_roster(User, Host), JID == LJID,
                                                 Item#roster.subscription /= none orelse Item#roster.ask /= in] of
        [Name | _] -> Name;
        _ -> <<>>
    end.

%% XEP-0402, and what came before it.
bookmark(User, Address, Host) ->
    LUser = {User, Host, <<>>},
    case gen_mod:is_loaded(Host, mod_pubsub) andalso mod_pubsub:get_item(LUser, <<"urn:xmpp:bookmarks:1">>, Address) of
        #pubsub_item{payload = Payload} ->
            hd([shown_name(attribute(<<"name">>, El)) || #xmlel{name = <<"conference">>} = El <- Payload] ++ [<<>>]);
        _ -> old_bookmark(User, Address, Host)
    end.

old_bookmark(User, Address, Host) ->
    Ns = <<"storage:bookmarks">>,
    case gen_mod:is_loaded(Host, mod_private)
        andalso mod_private:get_data(User, Host, [{Ns, #xmlel{name = <<"storage">>, attrs = [{<<"xmlns">>, Ns}]}}]) of
        [#xmlel{children = Children}] ->
            hd([shown_name(attribute(<<"name">>, El))
                || #xmlel{name = <<"conference">>} = El <- Children, #jid{} = Room <- [decode_jid(attribute(<<"jid">>, El))],
                   bare(Room) == Address] ++ [<<>>]);
        _ -> <<>>
    end.

%% muc#roomconfig_roomname, of a room of this server.
room_name(#jid{luser = Name, lserver = Service}) ->
    case mod_muc:find_online_room(Name, Service) of
        {ok, Pid} ->
            {ok, Config} = mod_muc_room:get_config(Pid),
            shown_name(element(2, Config));  % #config.title; its header file brings a #state{} of its own
        error -> <<>>
    end.

%% Without marks that turn the direction of a text or have no width.
shown_name(Name) when is_binary(Name) ->
    Shown = << <<C/utf8>> || <<C/utf8>> <= cut(spaced(Name), 4 * ?NAME_MAX), not (C >= 16#200B andalso C =< 16#200F),
                             not (C >= 16#202A andalso C =< 16#202E), not (C >= 16#2060 andalso C =< 16#206F), C /= 16#FEFF>>,
    trim_end(cut(trim_start(binary:replace(Shown, [<<"\n">>, <<"\r">>, <<"\t">>], <<" ">>, [global])), ?NAME_MAX));
shown_name(_) -> <<>>.

%%% Numbers, queue and link --------------------------------------------------------------------------------------------

message_child(Attrs, Bodies) -> message_child(Attrs, Bodies, ?BODY_MAX).

%% Half of each body and so on where every byte had to be escaped.
message_child(Attrs, Bodies, Limit) ->
    Child = #xmlel{name = <<"message">>, attrs = Attrs,
                   children = [#xmlel{name = <<"body">>, attrs = [{<<"xml:lang">>, Lang} || Lang /= <<>>],
                                      children = [{xmlcdata, cut(Text, Limit)}]} || {Lang, Text} <- Bodies]},
    case size_at_most(Child) =< ?STANZA_MAX orelse Bodies == [] orelse byte_size(fxml:element_to_binary(Child)) =< ?STANZA_MAX of
        true -> Child;
        false -> message_child(Attrs, Bodies, Limit div 2)
    end.

%% What must not be lost is kept, link or no link. The rest is state: a snapshot repeats it, so without a link it needs
%% no number.
give(_Child, false, #state{link = undefined} = State) -> State;
give(Child, Keep, State) ->
    Size = size_at_most(Child),
    State1 = case State#state.batch_bytes + Size > 4 * ?STANZA_MAX of  % if much of it has to be escaped, it is parted
                 true -> flush(State);
                 false -> State
             end,
    #state{batch = Batch, batch_count = Count, batch_bytes = Bytes} = State1,
    State2 = State1#state{batch = [{Keep, Child} | Batch], batch_count = Count + 1, batch_bytes = Bytes + Size},
    case Count + 1 >= State2#state.batch_max of
        true -> flush(State2);
        false -> State2
    end.

%% Escaped it is no longer than this.
size_at_most(#xmlel{attrs = Attrs, children = Children}) ->
    Values = lists:foldl(fun({_, Value}, Sum) -> Sum + byte_size(Value) end, 0, Attrs),
    Text = lists:foldl(fun(#xmlel{children = [{xmlcdata, Body}]}, Sum) -> Sum + byte_size(Body) end, 0, Children),
    200 + 6 * (Values + Text).

%% Numbers and sends what has been gathered: events that come close together share a stanza, because a stanza and its
%% acknowledgement cost more than an event does.
flush(#state{batch_count = 0} = State) -> State;
flush(#state{batch = Batch} = State) -> numbered(lists:reverse(Batch), State#state{batch = [], batch_count = 0, batch_bytes = 0}).

numbered(Batch, State) ->
    Kept = [Child || {true, Child} <- Batch],
    Xml = to_text(Kept),
    case is_allowed_text(Xml) of
        true -> numbered(Batch, Kept, Xml, State);
        false -> numbered([{Keep, allowed_child(Child)} || {Keep, Child} <- Batch], State)
    end.

%% One character that no XML holds would end the link, for all accounts. A session says nothing but what the server has
%% prepared.
allowed_child(#xmlel{attrs = Attrs, children = Children} = El) ->
    El#xmlel{attrs = [{Name, allowed_text(Value)} || {Name, Value} <- Attrs], children = [allowed_child(Child) || Child <- Children]};
allowed_child({xmlcdata, Text}) -> {xmlcdata, allowed_text(Text)}.

%% Up to where it is no text at all.
allowed_text(Text) -> << <<(allowed(C))/utf8>> || <<C/utf8>> <= Text>>.

numbered(Batch, Kept, Xml, State) ->
    All = [Child || {_, Child} <- Batch],
    AtMost = lists:foldl(fun(Child, Sum) -> Sum + size_at_most(Child) end, 0, All),
    Size = if length(Kept) == length(All) -> byte_size(Xml);
              AtMost =< ?STANZA_MAX -> AtMost;
              true -> byte_size(to_text(All))
           end,
    case Batch of
        [_, _ | _] when Size > ?STANZA_MAX ->
            {First, Second} = lists:split(length(Batch) div 2, Batch),
            numbered(Second, numbered(First, State));
        _ -> numbered(All, Kept, Xml, Size, linked(State))
    end.

numbered(_All, [], _Xml, _Bytes, #state{link = undefined} = State) -> State;
numbered(All, Kept, Xml, Bytes, #state{seq = Last, link = Link} = State) ->
    Seq = Last + 1,
    State1 = hold(Seq, length(Kept), Xml, State#state{seq = Seq}),
    case Link of
        undefined -> State1;
        {Pid, _} ->
            send(Pid, events([{<<"seq">>, integer_to_binary(Seq)}], All, State1), State1),
            State1#state{in_flight = State1#state.in_flight + Bytes, sent = queue:in({Seq, Bytes}, State1#state.sent)}
    end.

%% As one binary, outside the heap: terms would be copied by every garbage collection until they are acknowledged.
to_text(Children) -> fxml:element_to_binary(#xmlel{name = <<"held">>, children = Children}).

%% A connection buffers for a peer that does not read. When the relay is stuck it gets nothing more. Once it has acknowledged
%% what it got it is greeted with a number that does not follow the last: it asks for a snapshot, and gets what is held.
linked(#state{link = {_, Ref}, in_flight = Bytes, seq = Seq, shared = #shared{counters = Counters} = Shared} = State)
  when Bytes >= ?IN_FLIGHT_MAX ->
    ?WARNING_MSG("~ts left ~B bytes unacknowledged: nothing more until its next snapshot", [State#state.component, Bytes]),
    demonitor(Ref, [flush]),
    atomics:put(Counters, ?STUCK, 1),
    wake(Shared),  % what was acknowledged just before
    State#state{link = undefined, seq = Seq + 1};
linked(State) -> State.

no_longer_stuck(#state{shared = #shared{counters = Counters}} = State) ->
    atomics:put(Counters, ?STUCK, 0),
    State.

hold(_Seq, 0, _Xml, State) -> State;
hold(Seq, Count, Xml, #state{held = Held, held_count = All, held_bytes = Bytes} = State) ->
    enforce_bound(State#state{held = queue:in({Seq, erlang:monotonic_time(second), Count, Xml}, Held), held_count = All + Count,
                              held_bytes = Bytes + byte_size(Xml)}).

held_children(Xml) ->
    #xmlel{children = Children} = fxml_stream:parse_element(Xml),
    Children.

enforce_bound(#state{held = Held, held_count = Count, held_bytes = Bytes, queue_size = Size, queue_time = Time} = State) ->
    Oldest = erlang:monotonic_time(second) - Time,
    BytesMax = max(?STANZA_MAX, min(?HELD_MAX, Size * ?BODY_MAX)),
    case queue:peek(Held) of
        {value, {Seq, At, Lost, Xml}} when Count > Size; Bytes > BytesMax; At < Oldest ->
            State#state.dropped == 0 andalso
                ?WARNING_MSG("~ts does not acknowledge: more than ~B events, ~B bytes or ~B s are waiting, dropping the oldest",
                             [State#state.component, Size, BytesMax, Time]),
            ets:delete_all_objects(State#state.known),  % what was reported of conversations may be among it
            enforce_bound(State#state{held = queue:drop(Held), held_count = Count - Lost, held_bytes = Bytes - byte_size(Xml),
                                      dropped = State#state.dropped + Lost, dropped_seq = Seq});
        _ -> State
    end.

release(Position, State) ->
    State1 = release_sent(Position, release_held(Position, State)),
    case Position >= State1#state.dropped_seq of
        true -> State1#state{dropped = 0};
        false -> State1
    end.

release_held(Position, #state{held = Held, held_count = Count, held_bytes = Bytes} = State) ->
    case queue:peek(Held) of
        {value, {Seq, _, Released, Xml}} when Seq =< Position ->
            release_held(Position, State#state{held = queue:drop(Held), held_count = Count - Released,
                                               held_bytes = Bytes - byte_size(Xml)});
        _ -> State
    end.

release_sent(Position, #state{sent = Sent, in_flight = Bytes} = State) ->
    case queue:peek(Sent) of
        {value, {Seq, Size}} when Seq =< Position ->
            release_sent(Position, State#state{sent = queue:drop(Sent), in_flight = Bytes - Size});
        _ -> State
    end.

%% A number that was never given out says nothing of what the relay has.
position(Text, #state{seq = Last}) ->
    try binary_to_integer(Text) of
        Position when Position >= 0, Position =< Last -> Position;
        _ -> 0
    catch _:_ -> 0
    end.

%% All in one go: sessions, the result, what is held, and from then on whatever happens.
snapshot(Link, IQ, El, Gathered) ->
    #state{epoch = Epoch, link = Before} = State = no_longer_stuck(flush(Gathered)),
    Position = case attribute(<<"epoch">>, El) of
                   Epoch -> position(attribute(<<"seq">>, El), State);
                   _ -> 0
               end,
    State1 = enforce_bound(release(Position, State)),
    [send(Link, events([{<<"snapshot">>, <<"true">>}], Page, State1), State1)
     || Page <- pages([session_child(Session) || Session <- maps:values(State1#state.sessions)])],
    Result = #xmlel{name = <<"snapshot">>,
                    attrs = [{<<"xmlns">>, ?NS_BRIDGE}, {<<"epoch">>, Epoch}, {<<"seq">>, integer_to_binary(State1#state.seq)},
                             {<<"dropped">>, integer_to_binary(State1#state.dropped)}, {<<"module">>, ?MODULE_VERSION},
                             {<<"server">>, <<"ejabberd ", (ejabberd_option:version())/binary>>} | State1#state.node]},
    Link ! {route, xmpp:make_iq_result(IQ, Result)},
    [send(Link, events([{<<"seq">>, integer_to_binary(Seq)}, {<<"replay">>, <<"true">>}], held_children(Xml), State1), State1)
     || {Seq, _, _, Xml} <- queue:to_list(State1#state.held)],
    case Before of
        {_, Ref} -> demonitor(Ref, [flush]);
        undefined -> ok
    end,
    case attribute(<<"node">>, El) of
        <<>> -> gen_server:abcast(ejabberd_cluster:get_nodes() -- [node()], proc(State#state.host), hello);
        _ -> ok
    end,
    beat(State1#state{link = {Link, monitor(process, Link)}, in_flight = 0, sent = queue:new()}).  % says the interval

pages(Children) -> pages(Children, [], 0, 0).

pages([], [], _, _) -> [];
pages([], Page, _, _) -> [Page];
pages([Child | Rest], Page, Count, Bytes) ->
    Size = byte_size(fxml:element_to_binary(Child)),
    case Count == ?PAGE_MAX orelse (Count > 0 andalso Bytes + Size > ?STANZA_MAX) of
        true -> [Page | pages(Rest, [Child], 1, Size)];
        false -> pages(Rest, [Child | Page], Count + 1, Bytes + Size)
    end.

beat(State) -> give(heartbeat_child(State), false, State).

heartbeat_child(#state{heartbeat = Seconds}) -> child(<<"heartbeat">>, [{<<"interval">>, integer_to_binary(Seconds)}]).

events(Attrs, Children, #state{epoch = Epoch, node = Node}) ->
    #xmlel{name = <<"events">>, attrs = [{<<"xmlns">>, ?NS_BRIDGE}, {<<"epoch">>, Epoch} | Attrs] ++ Node,
           children = Children}.

%% Straight to the process of the connection: in order, and never over another connection or to another server.
send(Link, Events, State) -> Link ! {route, message(Events, State)}.

message(Events, #state{host = Host, component = Component}) ->
    #message{from = jid:make(Host), to = jid:make(Component), sub_els = [Events]}.

node_attr() ->
    case ejabberd_cluster:get_nodes() of
        [_, _ | _] -> [{<<"node">>, atom_to_binary(node(), utf8)}];
        _ -> []
    end.

%%% Small things -------------------------------------------------------------------------------------------------------

%% Adds an entry to the inbox of the host, and wakes its process if nobody has since the inbox was emptied.
add(Host, Msg) ->
    try
        Shared = shared(Host),
        insert(Msg, Shared),
        wake(Shared)
    catch error:badarg -> ok  % the module is being stopped
    end.

insert(Msg, #shared{inbox = Inbox, counters = Counters}) ->
    ets:insert(Inbox, {atomics:add_get(Counters, ?WRITTEN, 1), Msg}).

wake(#shared{pid = Pid, counters = Counters}) ->
    atomics:get(Counters, ?WOKEN) == 0 andalso atomics:exchange(Counters, ?WOKEN, 1) == 0 andalso (Pid ! woken).

%% The process of the host may wait for a database, or have more to do than it can: what waits for it is bounded.
add_message(Host, Msg) ->
    try
        #shared{counters = Counters} = Shared = shared(Host),
        case atomics:get(Counters, ?WRITTEN) - atomics:get(Counters, ?READ) < ?INBOX_MAX of
            true ->
                insert(Msg, Shared),
                wake(Shared);
            false -> atomics:add(Counters, ?LOST, 1)
        end
    catch error:badarg -> ok
    end.

shared(Host) -> persistent_term:get({?MODULE, Host}).

child(Name, Attrs) -> #xmlel{name = Name, attrs = Attrs}.

to_jid({User, Server, Resource}) ->
    #jid{user = User, server = Server, resource = Resource, luser = User, lserver = Server, lresource = Resource}.

bare(#jid{luser = User, lserver = Server}) -> encode({User, Server, <<>>}).

%% Smaller and faster than what jid:encode makes.
encode(#jid{} = JID) -> encode(jid:tolower(JID));
encode({User, Server, Resource}) ->
    iolist_to_binary([[[User, $@] || User /= <<>>], Server, [[$/, Resource] || Resource /= <<>>]]).

optional(_Name, <<>>) -> [];
optional(_Name, Value) when byte_size(Value) > ?ID_MAX -> [];
optional(Name, Value) -> [{Name, Value}].

to_xml(#xmlel{} = El) -> El;
to_xml(Record) -> xmpp:encode(Record).

attribute(Name, #xmlel{attrs = Attrs}) ->
    case lists:keyfind(Name, 1, Attrs) of
        {_, Value} -> Value;
        false -> <<>>
    end;
attribute(Name, El) -> attribute(Name, to_xml(El)).

child_of(Name, #xmlel{children = Children}) ->
    case lists:keyfind(Name, #xmlel.name, [Child || #xmlel{} = Child <- Children]) of
        #xmlel{} = Child -> Child;
        false -> none
    end.

has_child(Name, El) -> child_of(Name, El) /= none.

text_of(none) -> <<>>;
text_of(El) -> fxml:get_tag_cdata(El).

limited(Text) when byte_size(Text) > ?ID_MAX -> <<>>;
limited(Text) -> Text.

%% Addresses in elements are what somebody wrote.
decode_jid(<<>>) -> none;
decode_jid(Text) when byte_size(Text) > 3071 -> none;
decode_jid(Text) -> try jid:decode(Text) catch _:_ -> none end.

type(headline) -> <<"normal">>;  % only its call for attention is reported
type(Type) -> atom_to_binary(Type, utf8).

seconds() -> erlang:monotonic_time(second).

milliseconds() -> integer_to_binary(erlang:system_time(millisecond)).

milliseconds({Mega, Seconds, Micro}) -> integer_to_binary((Mega * 1000000 + Seconds) * 1000 + Micro div 1000).

base64url(Bytes) ->
    << <<(case C of $+ -> $-; $/ -> $_; _ -> C end)>> || <<C>> <= base64:encode(Bytes) >>.
