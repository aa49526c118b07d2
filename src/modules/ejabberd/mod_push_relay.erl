%%% Tells a PushRelay component what every session of this virtual host is doing and which messages its accounts got,
%%% so that the relay can alert the phones that nobody looks at.
%%%
%%% The wire is urn:pushrelay:bridge:1 over the component's own XEP-0114 link: whole session states, messages, what the
%%% account has read; numbered, kept until the relay says they are on its disk, and sent again when it asks.
%%%
%%% Hooks run in the processes of clients and senders: they read, put a letter into the box of this host and let the
%%% stanza go on. The process of the host is woken once for many letters and writes the events, all in one go; it owns
%%% numbers, queue, link and what was told of each session.
%%%
%%% ejabberd 23.01 or later. Options and limits: README.md.
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
-export([packet_arrives/1, host_receives/1, component_sends/1, user_removed/2, process_iq/1, decode_iq_subel/1]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("translate.hrl").

-define(NS_BRIDGE, <<"urn:pushrelay:bridge:1">>).
-define(MODULE_VERSION, <<"1.0.0">>).
-define(BODY_MAX, 8192).      % bytes
-define(ID_MAX, 1024).        % bytes: a longer id cannot identify anything and is left out
-define(STANZA_MAX, 60000).   % bytes: the wire allows 64 KiB with its wrapping
-define(PAGE_MAX, 100).       % children of a stanza, as the wire has it
-define(GATHER_TIME, 80).     % ms between two stanzas at least: events in between share one; after a pause none waits
-define(IN_FLIGHT_MAX, 16#1000000).  % bytes sent and not acknowledged before the relay counts as stuck
-define(COPY_WINDOW, 10000).  % ms in which the same message to another resource is a copy, at least
-define(SEEN_MAX, 1000).      % messages remembered for that
-define(COPIES_MAX, 100).     % resources of an account that it is a copy to: strangers invent them
-define(HELD_MAX, 16#4000000).  % bytes kept until the relay acknowledges them: for long messages
-define(LETTERS_MAX, 50000).  % messages in the letter box: more are lost, and counted
-define(LATE_MAX, 100).       % numbers whose letter is looked for again
-define(HEAP_MIN, 50000).     % words: the letters of one time need no collection of garbage
-define(KNOWN_MAX, 20000).    % conversations remembered as read, and accounts as existing
-define(HELLO_DELAY, 300).    % ms for the sessions of a running server to report themselves

-record(session, {attr :: attrs(), since :: binary(), pid :: pid(), ref :: reference(), user :: {binary(), binary()}}).
-record(state, {host :: binary(), component :: binary(),
                heartbeat :: pos_integer(), queue_size :: pos_integer(), queue_time :: pos_integer(),  % s, events, s
                epoch :: binary(), seq = 0 :: non_neg_integer(),                   % the last number given out
                held = queue:new() :: queue:queue(), held_count = 0 :: non_neg_integer(),  % {Seq, At, Count, Xml}; events
                held_bytes = 0 :: non_neg_integer(),
                batch = [] :: [{boolean(), xmlel()}], batch_count = 0 :: non_neg_integer(),  % to be sent: newest first
                batch_bytes = 0 :: non_neg_integer(), batch_max = 1 :: pos_integer(),
                emptied :: undefined | integer(),                                  % when the letter box was, ms
                dropped = 0 :: non_neg_integer(), dropped_seq = 0 :: non_neg_integer(),
                link :: undefined | {pid(), reference()},
                in_flight = 0 :: non_neg_integer(), sent = queue:new() :: queue:queue(),     % bytes; {Seq, Bytes}
                sessions = #{} :: #{binary() => #session{}}, refs = #{} :: #{reference() => binary()},
                nicks = #{} :: #{binary() => #{binary() => #{binary() => none | binary()}}},  % user => resource => room => nick
                seen = #{} :: map(), seen_before = #{} :: map(),
                node = [] :: attrs(),                                              % the attribute, where there are others
                late = [] :: [pos_integer()],   % letters that were not in the box yet, newest first
                known :: ets:tid(),   % {User, With}: nothing came since the account read it; User: the account exists
                shared :: shared()}).

%% What the processes of clients and senders share with that of the host: a letter box, and counters, side by side in
%% memory: the number of the last letter, the last one read, messages for which the box had no place, whether somebody
%% has rung since it was emptied, and whether the relay is stuck.
-record(shared, {pid :: pid(), box :: ets:tid(), counters :: atomics:atomics_ref()}).
-define(WRITTEN, 1).
-define(READ, 2).
-define(LOST, 3).
-define(RUNG, 4).
-define(STUCK, 5).
-type shared() :: #shared{}.
-type attrs() :: [{binary(), binary()}].

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
     {local_send_to_resource_hook, host_receives, 10},
     {remove_user, user_removed, 110}].               % after ejabberd_sm (100) has sent its sessions away

%% Hooks of the whole server: each host adds them, the first time counts, and the last host that stops removes them.
global_hooks() ->
    [{component_send_packet, component_sends, 10}].  % before mod_privilege (50)

%%% In a client's process: its sessions --------------------------------------------------------------------------------

%% What we know lives in the client's state: id, csi, overdue (it does not answer), watch (the timer that says so),
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
    cast(Host, {moved, Id}),
    State;
session_terminated(#{push_relay := #{id := Id}, lserver := Host, jid := JID} = State, _Reason) ->
    %% After hibernation there is nothing to say that was not said.
    {Messages, State1} = case State of
                             #{mgmt_state := active} -> unacked(State);
                             _ -> {[], State}
                         end,
    cast(Host, {closed, Id, JID, Messages}),
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
    cast(Host, {session, Id, self(), user(JID),
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
    cast(Host, {unacked, JID, Messages}),
    State1.

%% What the client has not acknowledged, each message once in the life of its queue.
unacked(#{push_relay := #{reported := Reported} = Own, mgmt_queue := Queue, jid := JID} = State) ->
    Waiting = [Item || {Number, _, #message{}} = Item <- p1_queue:to_list(Queue), Number > Reported],
    Messages = [{[{<<"unacked">>, <<"true">>}, {<<"ts">>, milliseconds(Time)} | Attrs], Body, references(Message)}
                || {_, Time, Packet} <- Waiting, Message <- [uncarbon(Packet)], {Attrs, Body} <- [event_for(Message, JID)]],
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
                 #{push_relay := #{csi := Csi} = Own} ->  % of the module before, which it may have outlived
                     State#{push_relay => Own#{csi => maps:get(csi_state, State, Csi), overdue => false}};
                 _ -> State#{push_relay => notes(maps:get(csi_state, State, active))}
             end,
    [begin
         Room = jid:encode({U, S, <<>>}),
         cast(JID#jid.lserver, {enters, user(JID), Room}),
         cast(JID#jid.lserver, {nick, user(JID), Room, Nick})
     end || {U, S, Nick} <- sets_to_list(maps:get(pres_a, State, [])), Nick /= <<>>],  % rooms it is in
    {stop, report(State1)};
client_cast(State, {?MODULE, _}) -> {stop, State};
client_cast(State, _Msg) -> State.

user(#jid{luser = User, lresource = Resource}) -> {User, Resource}.

sets_to_list(Set) -> try gb_sets:to_list(Set) catch _:_ -> [] end.

%%% In a client's process: what it reads and writes --------------------------------------------------------------------

user_sends({#message{type = error}, _State} = Acc) -> Acc;
user_sends({#message{to = To, sub_els = Els} = Message, #{jid := JID}} = Acc) ->
    case meanings(Els) of
        [] when Message#message.body == [] -> ok;
        [] when To#jid.lserver == JID#jid.lserver, To#jid.luser /= <<>> -> ok;  % said with its arrival
        Meanings -> user_sends(Message, Meanings, JID)
    end,
    Acc;
user_sends({#iq{type = set, to = To, sub_els = [El]}, #{jid := JID}} = Acc) ->
    %% XEP-0490: the client publishes what it has displayed to its own account; the item's id is the conversation.
    case (To == undefined orelse bare(To) == bare(JID)) andalso xmpp:get_ns(El) == ?NS_PUBSUB of
        true ->
            Publish = fxml:get_subtag(to_xml(El), <<"publish">>),
            Items = case Publish /= false andalso attribute(<<"node">>, Publish) of
                        <<"urn:xmpp:mds:displayed:0">> -> fxml:get_subtags(Publish, <<"item">>);
                        _ -> []
                    end,
            lists:foreach(fun(Item) ->
                                  try jid:decode(attribute(<<"id">>, Item)) of
                                      With -> cast(JID#jid.lserver, read_letter(JID, With))
                                  catch _:_ -> ok
                                  end
                          end, Items);
        false -> ok
    end,
    Acc;
user_sends({#presence{type = available, to = #jid{luser = Room, lresource = Nick} = To}, #{jid := JID}} = Acc)
  when Room /= <<>>, Nick /= <<>> ->
    cast(JID#jid.lserver, {enters, user(JID), bare(To)}),
    Acc;
user_sends(Acc) -> Acc.

user_sends(#message{to = undefined} = Message, Meanings, JID) -> user_sends(Message#message{to = JID}, Meanings, JID);
user_sends(#message{to = To, type = Type, id = Id} = Message, Meanings, #jid{luser = User, lserver = Host} = JID) ->
    case lists:keyfind(taken, 1, Meanings) of
        {taken, El} ->
            cast(Host, {keep, message_child([{<<"to">>, bare(JID)}, {<<"from">>, bare(To)}, {<<"class">>, <<"call-ended">>},
                                             {<<"call">>, attribute(<<"id">>, El)}, {<<"ts">>, milliseconds()},
                                             {<<"type">>, atom_to_binary(Type, utf8)} | optional(<<"id">>, Id)], <<>>)});
        false when To#jid.luser == User, To#jid.lserver == Host -> ok;
        false ->
            Type == groupchat andalso cast(Host, {wrote, bare(JID), bare(To), Id}),
            reads(Message, Meanings) andalso cast(Host, read_letter(JID, To))
    end.

reads(Message, Meanings) ->
    lists:keymember(displayed, 1, Meanings)
        orelse case classify(Message, Meanings) of
                   {Class, _, _} -> Class == text orelse Class == encrypted;
                   none -> false
               end.

read_letter(JID, With) -> {reads, JID, With, milliseconds()}.

%%% In a sender's process: what arrives --------------------------------------------------------------------------------

%% Marked, because ejabberd routes a message again when a session with a queue ends or is late for its resumption.
packet_arrives(#message{meta = #{push_relay := _}} = Message) -> Message;
packet_arrives(#message{type = Type} = Message) when Type == error; Type == headline -> Message;
packet_arrives(#message{to = To, type = Type, body = Body, sub_els = Els} = Message) ->
    case meanings(Els) of
        [] when Body == [] -> Message;
        [] when Type /= groupchat ->
            cast_message(To#jid.lserver, plain_letter(Message)),
            xmpp:put_meta(Message, push_relay, true);
        Meanings ->
            Inner = unsubscribe(Message, Meanings),
            case found(Inner, To) of
                none -> Message;
                Found ->
                    %% What else is in it can be large, and is read no more.
                    is_there(Message, To)
                        andalso cast_message(To#jid.lserver, {arrived, erlang:system_time(millisecond), Message#message.from, To,
                                                              Inner#message{sub_els = []}, Found, references(Inner)}),
                    xmpp:put_meta(Message, push_relay, true)
            end
    end;
packet_arrives(#presence{from = From, to = #jid{lresource = Resource} = To, type = Type} = Presence)
  when Resource /= <<>>, Type == available orelse Type == unavailable ->
    %% Status 110 is the room's word for "this is you" (XEP-0045 section 7.2.2). In the process of the room, as its
    %% messages are: so the nickname is known before the first of them.
    case xmpp:has_subtag(Presence, #muc_user{}) andalso xmpp:get_subtag(Presence, #muc_user{}) of
        #muc_user{status_codes = Codes} ->
            Nick = case Type of
                       available -> From#jid.lresource;
                       unavailable -> none
                   end,
            lists:member(110, Codes) andalso not lists:member(303, Codes) andalso  % 303: another nickname follows
                cast(To#jid.lserver, {nick, user(To), bare(From), Nick});
        _ -> ok
    end,
    Presence;
packet_arrives(Stanza) -> Stanza.

%% Of a message that is nothing but text, as little as is needed: the letter is copied twice, and read by another core.
plain_letter(#message{from = From, to = To, type = Type, id = Id, body = Body, meta = Meta}) ->
    {plain, erlang:system_time(millisecond), jid:tolower(From), jid:tolower(To), Type, Id, Body,
     maps:get(stanza_id, Meta, none), is_map_key(ip, Meta)}.

%% MUC/Sub: the room's message travels in an event to the subscriber's account.
unsubscribe(Message, Meanings) ->
    case lists:keymember(event, 1, Meanings) andalso misc:unwrap_mucsub_message(Message) of
        #message{} = Inner -> Inner#message{type = groupchat};
        false -> Message
    end.

%% A group message for a resource that is gone goes back as an error, and the room removes the occupant.
is_there(#message{type = groupchat}, #jid{luser = User, lserver = Server, lresource = Resource}) ->
    ejabberd_sm:get_session_pid(User, Server, Resource) /= none;
is_there(_, _) -> true.

%% Whether the account exists and has not blocked the sender.
is_wanted(From, #jid{luser = User, lserver = Host} = To, Message, Known) ->
    (ets:member(Known, User) orelse ejabberd_auth:user_exists(User, Host) andalso ets:insert(Known, {User}))
        andalso is_allowed(From, To, Message).

is_allowed(From, To, Message) ->
    allow == ejabberd_hooks:run_fold(privacy_check_packet, To#jid.lserver, allow, [To, Message#message{from = From, to = To}, in]).

%% What the account of that JID is to hear: {Class, Body, Call, StanzaId}, or none.
found(#message{from = #jid{luser = User, lserver = Server}}, #jid{luser = User, lserver = Server}) -> none;
found(#message{from = #jid{}} = Message, JID) ->
    case classify(Message) of
        {Class, Body, Call} -> {Class, Body, Call, stanza_id(Message, JID)};
        none -> none
    end;
found(_, _) -> none.

%% The message event for the account of that JID, or none if it is not to hear of it.
event_for(Message, JID) ->
    case found(Message, JID) of
        none -> none;
        Found -> event_for(Message, JID, Found)
    end.

event_for(#message{from = From, type = Type, id = Id}, JID, {Class, Body, Call, StanzaId}) ->
    Group = case Type of
                groupchat -> [{<<"room">>, bare(From)} | optional(<<"nick">>, From#jid.lresource)];
                _ -> []
            end,
    {[{<<"to">>, bare(JID)}, {<<"from">>, encode(From)}, {<<"type">>, atom_to_binary(Type, utf8)}, {<<"class">>, class(Class)}]
     ++ Group ++ optional(<<"id">>, Id) ++ optional(<<"call">>, Call) ++ optional(<<"stanza-id">>, StanzaId), Body}.

class('call-ended') -> <<"call-ended">>;
class(Class) -> atom_to_binary(Class, utf8).

stanza_id(#message{type = groupchat, from = From, sub_els = Els}, _JID) ->
    case [Id || #stanza_id{by = By, id = Id} <- [decode_stanza_id(El) || El <- Els], bare(By) == bare(From)] of
        [Id | _] -> Id;
        [] -> <<>>
    end;
stanza_id(Message, JID) ->
    case xmpp:get_meta(Message, stanza_id, none) of
        Id when is_integer(Id) ->
            case gen_mod:is_loaded(JID#jid.lserver, mod_mam) of
                true -> integer_to_binary(Id);
                false -> <<>>
            end;
        _ -> <<>>
    end.

decode_stanza_id(#stanza_id{} = Id) -> Id;
decode_stanza_id(#xmlel{name = <<"stanza-id">>} = El) -> try xmpp:decode(El) catch _:_ -> none end;
decode_stanza_id(_) -> none.

%%% What a message is --------------------------------------------------------------------------------------------------

%% {Class, Body, Call}, or none if nobody should hear of it.
classify(#message{type = Type}) when Type == error; Type == headline -> none;
classify(#message{sub_els = Els} = Message) -> classify(Message, meanings(Els)).

classify(#message{type = Type}, _) when Type == error; Type == headline -> none;
classify(#message{body = []}, []) -> none;
classify(#message{from = From, to = To, type = Type, body = Text}, Meanings) ->
    classify(Meanings, xmpp:get_text(Text), From, To, Type).

classify([], Body, _From, _To, _Type) -> classify(none, none, none, Body);
classify(Meanings, Body, From, To, Type) ->
    Find = fun(Meaning) -> proplists:get_value(Meaning, Meanings, none) end,
    Old = lists:any(fun({delay, El}) -> is_stored(El, From, To, Type); (_) -> false end, Meanings),
    case lists:keymember('not a message', 1, Meanings) orelse Old of
        true -> none;
        false ->
            case {call_id(Find(call)), call_id(Find('call-ended'))} of
                {Call, _} when Call /= none -> {call, Body, Call};
                {_, Call} when Call /= none -> {'call-ended', <<>>, Call};
                _ -> classify(Find(invite), Find(omemo), Find(encrypted), Body)
            end
    end.

classify(none, none, none, <<"?OTR", _/binary>>) -> {encrypted, <<>>, <<>>};
classify(none, none, none, <<>>) -> none;
classify(none, none, none, Body) -> {text, Body, <<>>};
classify(none, none, _Encrypted, _Body) -> {encrypted, <<>>, <<>>};
classify(none, Omemo, _, Body) ->
    case fxml:get_subtag(to_xml(Omemo), <<"payload">>) of
        false when Body == <<>> -> none;  % only moves keys
        _ -> {encrypted, <<>>, <<>>}
    end;
classify(_Invite, _, _, Body) -> {invite, Body, <<>>}.

meanings([]) -> [];
meanings([El | Rest]) ->
    case meaning(El) of
        none -> meanings(Rest);
        Meaning -> [{Meaning, El} | meanings(Rest)]
    end.

meaning(#xmlel{name = Name, attrs = [{<<"xmlns">>, Ns} | _]} = El) -> meaning(Ns, Name, El);
meaning(#message{}) -> none;
meaning(El) -> meaning(xmpp:get_ns(El), xmpp:get_name(El), El).

meaning(<<"urn:xmpp:eme:", _/binary>>, <<"encryption">>, _) -> encrypted;                     % XEP-0380
meaning(<<"jabber:x:encrypted">>, <<"x">>, _) -> encrypted;                                   % XEP-0027
meaning(<<"urn:xmpp:openpgp:", _/binary>>, <<"openpgp">>, _) -> encrypted;                    % XEP-0373
meaning(<<"eu.siacs.conversations.axolotl">>, <<"encrypted">>, _) -> omemo;                   % XEP-0384 before 0.4
meaning(<<"urn:xmpp:omemo:", _/binary>>, <<"encrypted">>, _) -> omemo;                        % with XEP-0420 inside
meaning(<<"urn:xmpp:jingle-message:", _/binary>>, Name, _) -> jingle(Name);                   % XEP-0353
meaning(<<"jabber:x:conference">>, <<"x">>, _) -> invite;                                     % XEP-0249
meaning(<<"http://jabber.org/protocol/muc#user">>, <<"x">>, El) ->
    case fxml:get_subtag(to_xml(El), <<"invite">>) of
        false -> none;
        _ -> invite
    end;
meaning(<<"urn:xmpp:carbons:", _/binary>>, Name, _) when Name == <<"sent">>; Name == <<"received">> -> 'not a message';
meaning(<<"urn:xmpp:mam:", _/binary>>, <<"result">>, _) -> 'not a message';
meaning(<<"urn:xmpp:delay">>, <<"delay">>, _) -> delay;
meaning(<<"urn:xmpp:chat-markers:", _/binary>>, <<"displayed">>, _) -> displayed;             % XEP-0333
meaning(?NS_PUBSUB_EVENT, <<"event">>, _) -> event;                                           % what MUC/Sub delivers
meaning(_, _, _) -> none.

jingle(<<"propose">>) -> call;
jingle(Name) when Name == <<"retract">>; Name == <<"finish">> -> 'call-ended';
jingle(Name) when Name == <<"accept">>; Name == <<"proceed">>; Name == <<"reject">> -> taken;  % the other devices stop
jingle(_) -> none.

%% History of a room (XEP-0045 section 7.2.13), or something this server had stored or queued and reported when it came.
is_stored(El, From, To, Type) ->
    try xmpp:decode(to_xml(El)) of
        #delay{from = #jid{} = By} ->
            (Type == groupchat andalso From /= undefined andalso bare(By) == bare(From))
                orelse (To /= undefined andalso By#jid.luser == <<>> andalso By#jid.lserver == To#jid.lserver);
        _ -> false
    catch _:_ -> false
    end.

call_id(none) -> none;
call_id(El) ->
    case attribute(<<"id">>, El) of
        <<>> -> none;
        Id -> Id
    end.

%% What a message refers to (XEP-0372), without the scheme.
references(#message{type = groupchat, sub_els = Els}) ->
    [decode_percent(Uri) || El <- Els, xmpp:get_ns(El) == <<"urn:xmpp:reference:0">>, attribute(<<"type">>, El) == <<"mention">>,
                            <<"xmpp:", Uri/binary>> <- [attribute(<<"uri">>, El)]];
references(_) -> [].

decode_percent(<<$%, A, B, Rest/binary>>) ->
    try <<(binary_to_integer(<<A, B>>, 16)), (decode_percent(Rest))/binary>>
    catch _:_ -> <<$%, A, B, (decode_percent(Rest))/binary>>
    end;
decode_percent(<<C, Rest/binary>>) -> <<C, (decode_percent(Rest))/binary>>;
decode_percent(<<>>) -> <<>>.

%%% From the relay -----------------------------------------------------------------------------------------------------

decode_iq_subel(El) -> El.  % no codec knows our namespace

%% mod_privilege of ejabberd 24.10 and later drops the requests of a component that has no privilege, and of 24.12 also
%% those of one that has. What the relay sends to this host or to the bare JID of an account does not reach it.
component_sends({#iq{from = #jid{lserver = Component}, to = #jid{lserver = Host, lresource = <<>>}}, _State} = Acc) ->
    case gen_mod:is_loaded(Host, ?MODULE) andalso option(Host, component) == Component of
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

%% In a cluster every node has a stream of its own; whoever holds the link passes on what is meant for another.
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
        put_letter(Ack, Shared),
        atomics:get(Counters, ?STUCK) == 1 andalso ring(Shared)
    catch error:badarg -> true
    end;
acknowledge({_, Node} = Process, Host, Ack) when Node == node() -> acknowledge(element(1, Process), Host, Ack);
acknowledge(Process, _Host, Ack) -> gen_server:cast(Process, Ack).

user_removed(User, Server) ->
    cast(Server, {removed, jid:nodeprep(User), jid:nameprep(Server), milliseconds()}).

%%% The process of the host --------------------------------------------------------------------------------------------

init([Host | _]) ->
    process_flag(trap_exit, true),
    process_flag(min_heap_size, ?HEAP_MIN),
    Shared = #shared{pid = self(), counters = atomics:new(5, []), box = ets:new(?MODULE, [public])},
    persistent_term:put({?MODULE, Host}, Shared),
    State = configured(gen_mod:get_module_opts(Host, ?MODULE),
                       #state{host = Host, shared = Shared, known = ets:new(?MODULE, []), component = <<>>,
                              heartbeat = 1, queue_size = 1, queue_time = 1,
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
    State#state{component = gen_mod:get_opt(component, Opts), heartbeat = gen_mod:get_opt(heartbeat, Opts),
                queue_size = Size, batch_max = max(1, min(?PAGE_MAX, Size div 100)),  % the queue drops whole stanzas
                queue_time = gen_mod:get_opt(queue_time, Opts)}.

terminate(_Reason, #state{host = Host}) ->
    [ejabberd_hooks:delete(Hook, Host, ?MODULE, Function, Priority) || {Hook, Function, Priority} <- hooks()],
    gen_mod:is_loaded_elsewhere(Host, ?MODULE) orelse
        [ejabberd_hooks:delete(Hook, global, ?MODULE, Function, Priority) || {Hook, Function, Priority} <- global_hooks()],
    gen_iq_handler:remove_iq_handler(ejabberd_local, Host, ?NS_BRIDGE),
    persistent_term:erase({?MODULE, Host}).

code_change(_OldVsn, State, _Extra) -> {ok, State}.

handle_call(_Request, _From, State) -> {reply, {error, badarg}, State}.

handle_cast({ack, _, _} = Ack, State) -> {noreply, said(Ack, State)};
handle_cast(Msg, State) -> {noreply, flush(said(Msg, emptied(State)))}.

%% Somebody has rung: now, or when the last time is long enough ago.
handle_info(rung, #state{emptied = Emptied, shared = #shared{counters = Counters}} = State) ->
    Now = erlang:monotonic_time(millisecond),
    case Emptied == undefined orelse Now - Emptied >= ?GATHER_TIME of
        true ->
            atomics:put(Counters, ?RUNG, 0),  % before: whoever comes later rings again
            Before = atomics:get(Counters, ?READ),
            State1 = flush(emptied(State)),
            %% Where there is much to read, nobody needs to ring for the next time.
            atomics:get(Counters, ?READ) - Before > 1 andalso atomics:exchange(Counters, ?RUNG, 1) == 0
                andalso erlang:send_after(?GATHER_TIME, self(), rung),
            {noreply, State1#state{emptied = Now}};
        false ->
            erlang:send_after(Emptied + ?GATHER_TIME - Now, self(), rung),
            {noreply, State}
    end;
%% What the process wrote before it died comes first.
handle_info(Info, State) -> {noreply, flush(told(Info, emptied(State)))}.

%% Takes the letters out of the box, in the order of their numbers; that is the order of writing, except for those that
%% were written at the same time. What was written because of a letter that is not among them is not among them either.
emptied(#state{late = Late, shared = #shared{counters = Counters}} = State) ->
    First = atomics:get(Counters, ?READ) + 1,
    Last = atomics:get(Counters, ?WRITTEN),
    State1 = letters(First, Last, lists:foldr(fun letter/2, State#state{late = [], node = node_attr()}, Late)),
    atomics:put(Counters, ?READ, Last),
    counted(atomics:exchange(Counters, ?LOST, 0), State1).

letters(Number, Last, State) when Number > Last -> State;
letters(Number, Last, State) -> letters(Number + 1, Last, letter(Number, State)).

%% One that has its number is about to be in the box, unless its writer was killed at that moment.
letter(Number, #state{late = Late, shared = #shared{box = Box}} = State) ->
    case ets:take(Box, Number) of
        [{_, Msg}] -> read(Msg, State);
        [] -> State#state{late = lists:sublist([Number | Late], ?LATE_MAX)}
    end.

%% One letter that cannot be read does not cost the queue.
read(Msg, State) ->
    try said(Msg, State) catch Class:Reason:Stack ->
            ?ERROR_MSG("A letter was not understood:~n** ~ts", [misc:format_exception(2, Class, Reason, Stack)]),
            State
    end.

%% A number that is never seen: the relay asks, and is told how many.
counted(0, State) -> State;
counted(Lost, State) ->
    ?WARNING_MSG("~B messages came while ~B waited to be reported: they are not", [Lost, ?LETTERS_MAX]),
    #state{seq = Last, dropped = Dropped} = State1 = flush(State),
    State1#state{seq = Last + 1, dropped = Dropped + Lost, dropped_seq = Last + 1}.

said({session, Id, Pid, User, Attrs}, State) -> session(Id, Pid, User, Attrs, State);
said({closed, Id, JID, Messages}, State) -> closed(Id, JID, Messages, State);
said({moved, Id}, #state{sessions = Sessions} = State) ->
    case Sessions of
        #{Id := #session{ref = Ref}} ->
            demonitor(Ref, [flush]),
            State#state{refs = maps:remove(Ref, State#state.refs)};
        _ -> State
    end;
said({plain, Time, FromAddress, ToAddress, Type, Id, Body, StanzaId, IsFromClient}, State) ->
    From = to_jid(FromAddress),
    To = to_jid(ToAddress),
    Message = #message{from = From, to = To, type = Type, id = Id, body = Body, meta = #{stanza_id => StanzaId}},
    State1 = case IsFromClient of
                 true -> answered(Time, From, To, State);
                 false -> State
             end,
    case found(Message, To) of
        none -> State1;
        Found -> arrived(Time, From, To, Message, Found, [], State1)
    end;
said({arrived, Time, From, To, Message, Found, References}, State) -> arrived(Time, From, To, Message, Found, References, State);
said({reads, JID, With, Time}, State) -> displayed(JID, With, Time, State);
said({removed, User, Host, Time}, #state{known = Known} = State) ->
    ets:delete(Known, User),
    give(child(<<"account-removed">>, [{<<"jid">>, jid:encode({User, Host, <<>>})}, {<<"ts">>, Time}]), true, State);
said({unacked, JID, Messages}, State) -> give_messages(JID, Messages, State);
said({keep, Child}, State) -> give(Child, true, State);
said({enters, User, Room}, State) -> in_rooms(User, fun(Rooms) -> maps:merge(#{Room => none}, Rooms) end, State);
said({nick, User, Room, none}, State) -> in_rooms(User, fun(Rooms) -> maps:remove(Room, Rooms) end, State);
said({nick, User, Room, Nick}, #state{node = Node} = State) ->
    %% Anybody can say that this is you: what was not asked is no room. In a cluster another node may have heard the asking.
    in_rooms(User, fun(Rooms) when is_map_key(Room, Rooms); Node /= [] -> Rooms#{Room => Nick};
                      (Rooms) -> Rooms
                   end, State);
said({wrote, Account, Room, Id}, State) -> remember({wrote, Account, Room, Id}, true, State);
said({snapshot, Link, IQ, El}, State) -> snapshot(Link, IQ, El, State);
said({ack, Epoch, Seq}, #state{epoch = Epoch, link = Link, in_flight = Before} = State) ->
    case release(position(Seq, State), State) of
        #state{in_flight = 0} = State1 when Link == undefined, Before > 0 -> say_hello(flush(no_longer_stuck(State1)));
        State1 -> State1
    end;
said(hello, State) -> hello(State);
said({reload, Opts}, State) -> configured(Opts, State);
said(_Msg, State) -> State.

told(heartbeat, #state{heartbeat = Seconds, known = Known} = State) ->
    erlang:send_after(Seconds * 1000, self(), heartbeat),
    ets:info(Known, size) > ?KNOWN_MAX andalso ets:delete_all_objects(Known),
    beat(enforce_bound(State));
told(forget, State) ->
    erlang:send_after(?COPY_WINDOW, self(), forget),
    State#state{seen = #{}, seen_before = State#state.seen};
told(hello, State) -> hello(State);
told({'DOWN', Ref, process, _Pid, _Reason}, #state{link = {_, Ref}} = State) -> State#state{link = undefined};
told({'DOWN', Ref, process, _Pid, _Reason}, #state{refs = Refs} = State) ->
    case Refs of
        #{Ref := Id} -> closed(Id, none, [], State);
        _ -> State
    end;
told(_Info, State) -> State.

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
        _ ->
            Session1 = Session#session{attr = Attrs, since = Now},
            give(session_child(Session1), false, State#state{sessions = Sessions#{Id => Session1}, refs = Refs1})
    end.

closed(Id, JID, Messages, #state{sessions = Sessions} = State) ->
    case maps:take(Id, Sessions) of
        {#session{attr = Attrs, ref = Ref, user = User}, Rest} ->
            demonitor(Ref, [flush]),
            Gone = [{<<"state">>, <<"closed">>}, {<<"available">>, <<"false">>}, {<<"priority">>, <<"0">>},
                    {<<"ts">>, milliseconds()} | [Attr || {Name, _} = Attr <- Attrs, Name == <<"jid">> orelse Name == <<"sid">>]],
            State1 = give(child(<<"session">>, Gone), false,
                          State#state{sessions = Rest, refs = maps:remove(Ref, State#state.refs)}),
            in_rooms(User, fun(_) -> #{} end, give_messages(JID, Messages, State1));
        error -> State
    end.

%% The rooms of a resource, and its nickname in each: none, as long as the room has not said it.
in_rooms({User, Resource}, Change, #state{nicks = Nicks} = State) ->
    Resources = maps:get(User, Nicks, #{}),
    Resources1 = case Change(maps:get(Resource, Resources, #{})) of
                     None when map_size(None) == 0 -> maps:remove(Resource, Resources);
                     Rooms -> Resources#{Resource => Rooms}
                 end,
    State#state{nicks = case map_size(Resources1) of
                            0 -> maps:remove(User, Nicks);
                            _ -> Nicks#{User => Resources1}
                        end}.

session_child(#session{attr = Attrs, since = Since}) -> child(<<"session">>, [{<<"ts">>, Since} | Attrs]).

%%% Messages -----------------------------------------------------------------------------------------------------------

arrived(Time, From, To, Message, Found, References, #state{known = Known} = State) ->
    case is_wanted(From, To, Message, Known) of
        true ->
            ets:delete(Known, conversation(To, Message#message.from)),
            {Attrs, Body} = event_for(Message, To, Found),
            arrived(To, {[{<<"ts">>, integer_to_binary(Time)} | Attrs], Body, References}, State);
        false -> State
    end.

arrived(#jid{lresource = <<>>} = JID, Message, State) -> give_messages(JID, [Message], State);
arrived(JID, {Attrs, Body, _} = Message, State) ->
    case copy(Attrs, Body, JID, State) of
        {true, State1} -> State1;
        {false, State1} -> give_messages(JID, [Message], State1)
    end.

%% Who writes to another account has read what that one wrote. Only what a client sent carries its address.
answered(Time, #jid{luser = User, lserver = Host} = From, #jid{luser = Other} = To, #state{host = Host} = State) when User /= Other ->
    displayed(From, To, integer_to_binary(Time), State);
answered(_Time, _From, _To, State) -> State.

%% Said once: again only after something new has come. In a cluster that may have come by another node.
displayed(JID, With, Time, #state{known = Known, node = Node} = State) ->
    case ets:insert_new(Known, {conversation(JID, With)}) orelse Node /= [] of
        true -> give(child(<<"displayed">>, [{<<"account">>, bare(JID)}, {<<"with">>, bare(With)}, {<<"ts">>, Time}]), true, State);
        false -> State
    end.

conversation(#jid{luser = User}, #jid{luser = Other, lserver = Server}) -> {User, Other, Server}.

give_messages(JID, Messages, State) -> lists:foldl(fun(Message, Acc) -> give_message(JID, Message, Acc) end, State, Messages).

give_message(JID, {Attrs, Body, References}, State) ->
    case lists:keyfind(<<"room">>, 1, Attrs) of
        {_, Room} -> give_group_message(JID, Room, Attrs, Body, References, State);
        false -> give(message_child(Attrs, Body), true, State)
    end.

give_group_message(#jid{luser = User}, With, Attrs, Body, References, State) ->
    {_, Account} = lists:keyfind(<<"to">>, 1, Attrs),
    Nicks = [Nick || #{With := Nick} <- maps:values(maps:get(User, State#state.nicks, #{})), Nick /= none],
    case is_own(Attrs, With, Nicks, State) of
        true -> State;
        false ->
            Mention = [{<<"mention">>, <<"true">>} || is_mention(Body, References, With, Nicks, Account)],
            give(message_child(Mention ++ Attrs, Body), true, State)
    end.

is_own(Attrs, Room, Nicks, State) ->
    Id = proplists:get_value(<<"id">>, Attrs, <<>>),
    lists:member(proplists:get_value(<<"nick">>, Attrs, none), Nicks)
        orelse (Id /= <<>> andalso recall({wrote, proplists:get_value(<<"to">>, Attrs), Room, Id}, State) /= none).

is_mention(Body, References, Room, Nicks, Account) ->
    lists:member(Account, References)
        orelse lists:any(fun(Nick) -> lists:member(<<Room/binary, $/, Nick/binary>>, References) end, Nicks)
        orelse lists:any(fun(Nick) -> has_word(ascii_lower(Body), ascii_lower(Nick)) end, Nicks).

has_word(Text, Word) ->
    lists:any(fun({At, Length}) ->
                      not (is_word(Word, 0) andalso is_word(Text, At - 1))
                          andalso not (is_word(Word, Length - 1) andalso is_word(Text, At + Length))
              end, binary:matches(Text, Word)).

is_word(Text, At) when At < 0; At >= byte_size(Text) -> false;
is_word(Text, At) ->
    C = binary:at(Text, At),
    (C >= $a andalso C =< $z) orelse (C >= $0 andalso C =< $9).

ascii_lower(Text) -> << <<(if C >= $A, C =< $Z -> C + 32; true -> C end)>> || <<C>> <= Text >>.

%% A room sends one stanza to every joined resource of the account, and a sender may do the same: one event. The same
%% words to the same JID again are a new message.
copy(Attrs, Body, JID, State) ->
    Key = crypto:hash(sha, [[proplists:get_value(Name, Attrs, <<>>), 0]
                            || Name <- [<<"to">>, <<"from">>, <<"id">>, <<"class">>, <<"call">>]] ++ [Body]),
    To = jid:tolower(JID),
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

message_child(Attrs, Body) -> message_child(Attrs, Body, ?BODY_MAX).

%% Half of it and so on for a body of which each byte had to be escaped.
message_child(Attrs, Body, Limit) ->
    Text = cut(Body, Limit),
    Child = #xmlel{name = <<"message">>, attrs = Attrs,
                   children = [#xmlel{name = <<"body">>, children = [{xmlcdata, Text}]} || Text /= <<>>]},
    case size_at_most(Child) =< ?STANZA_MAX orelse Text == <<>> orelse byte_size(fxml:element_to_binary(Child)) =< ?STANZA_MAX of
        true -> Child;
        false -> message_child(Attrs, Body, Limit div 2)
    end.

cut(Text, Bytes) when byte_size(Text) =< Bytes -> Text;
cut(Text, Bytes) ->
    case binary:at(Text, Bytes) of
        C when C >= 16#80, C < 16#C0, Bytes > 0 -> cut(Text, Bytes - 1);
        _ -> binary:part(Text, 0, Bytes)
    end.

%%% Numbers, queue and link --------------------------------------------------------------------------------------------

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
    All = [Child || {_, Child} <- Batch],
    Kept = [Child || {true, Child} <- Batch],
    Xml = to_text(Kept),
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
linked(#state{link = {_, Ref}, in_flight = Bytes, seq = Seq, shared = #shared{counters = Counters} = Shared} = State) when Bytes >= ?IN_FLIGHT_MAX ->
    ?WARNING_MSG("~ts left ~B bytes unacknowledged: nothing more until its next snapshot", [State#state.component, Bytes]),
    demonitor(Ref, [flush]),
    atomics:put(Counters, ?STUCK, 1),
    ring(Shared),  % what was acknowledged just before
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
            ets:delete_all_objects(State#state.known),  % what was said of conversations may be among it
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
            release_held(Position, State#state{held = queue:drop(Held), held_count = Count - Released, held_bytes = Bytes - byte_size(Xml)});
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

%% Puts a letter into the box of the host, and rings if nobody has since it was emptied.
cast(Host, Msg) ->
    try
        Shared = shared(Host),
        put_letter(Msg, Shared),
        ring(Shared)
    catch error:badarg -> ok  % the module is being stopped
    end.

put_letter(Msg, #shared{box = Box, counters = Counters}) ->
    ets:insert(Box, {atomics:add_get(Counters, ?WRITTEN, 1), Msg}).

ring(#shared{pid = Pid, counters = Counters}) ->
    atomics:get(Counters, ?RUNG) == 0 andalso atomics:exchange(Counters, ?RUNG, 1) == 0 andalso (Pid ! rung).

%% The process of the host may wait for a database, or have more to do than it can: what waits for it is bounded.
cast_message(Host, Msg) ->
    try
        #shared{counters = Counters} = Shared = shared(Host),
        case atomics:get(Counters, ?WRITTEN) - atomics:get(Counters, ?READ) < ?LETTERS_MAX of
            true ->
                put_letter(Msg, Shared),
                ring(Shared);
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

attribute(Name, El) -> fxml:get_tag_attr_s(Name, to_xml(El)).

milliseconds() -> integer_to_binary(erlang:system_time(millisecond)).

milliseconds({Mega, Seconds, Micro}) -> integer_to_binary((Mega * 1000000 + Seconds) * 1000 + Micro div 1000).

base64url(Bytes) ->
    << <<(case C of $+ -> $-; $/ -> $_; _ -> C end)>> || <<C>> <= base64:encode(Bytes) >>.
