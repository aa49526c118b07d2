"""What clients send, and what a module must make of it: one line of the table for each kind of message.

A vector has a name, a stanza as it is on the wire, and the events that the bridge must carry for it: an empty list where
nobody is to hear of it. `cases.py` plays each one through the real module of a real server.

How the stanza comes to bob (`way`):
  chat      alice sends it to bob's bare JID; she is not in his contact list
  room      alice sends it to a room of the server, in which bob's client is the occupant `bob`
  gateway   a component sends it as it stands, `from` and `to` included. {hall} is a room of that component; bob's client
            is its occupant `bob` with the occupant-id `Ox`, and the room's history is over

Placeholders: {bob} his account, {phone} his client's full JID, {alice} her full JID, {room}, {hall}, {gateway} the domain
of the component, {id} an id of this run. The module has no list of ids: what a correction names need not exist.

An expected event holds its attributes by name, and `body`; `bodies` is the list of (language, text) where there are more
than one. What is not named must be absent. Filled in by the driver: `from`, `type` and `id` as in the stanza, class
`text`, kind of event `message`, and `room` and `nick` for a group message. Not looked at: `to`, `ts`, `stanza-id`, `name`.

`differs` says in one sentence where the event is not what a reader of the specification alone may expect, or why.
"""
import typing

NOTHING = []


class Vector(typing.NamedTuple):
    name: str
    stanza: str
    events: list
    way: str = 'chat'
    differs: str = ''


VECTORS = []


def vector(name, stanza, *events, way='chat', differs=''):
    VECTORS.append(Vector(name, ' '.join(line.strip() for line in stanza.strip().splitlines()), list(events), way, differs))


def text(body=None, **attributes):
    return {'body': body, **attributes}


def encrypted(**attributes):
    return {'class': 'encrypted', **attributes}


def retraction(of, **attributes):
    return {'event': 'retraction', 'of': of, **attributes}


# Corrections: XEP-0308 --------------------------------------------------------------------------------------------------

vector('correction', '''
    <message type='chat' to='{bob}' id='{id}'><body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='c1'/></message>''',
       text('hello', replaces='c1'))
vector('correction in a room', '''
    <message type='groupchat' to='{room}' id='{id}'><body>hello</body><replace xmlns='urn:xmpp:message-correct:0' id='c1'/></message>''',
       text('hello', replaces='c1'), way='room')
vector('correction of an encrypted message', '''
    <message type='chat' to='{bob}' id='{id}'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='7'/><payload>AA==</payload>
    </encrypted><replace xmlns='urn:xmpp:message-correct:0' id='c1'/><body>placeholder</body></message>''',
       encrypted(replaces='c1'))
vector('correction with a blank body', '''
    <message type='chat' to='{bob}' id='{id}'><body> </body><replace xmlns='urn:xmpp:message-correct:0' id='c1'/></message>''',
       retraction('c1'),
       differs='Cheogram takes a message back this way; on the wire it is a retraction like any other.')
vector('correction with a blank body in a room', '''
    <message type='groupchat' to='{room}' id='{id}'><body> </body><replace xmlns='urn:xmpp:message-correct:0' id='c1'/></message>''',
       retraction('c1'), way='room')
vector('correction with the word of the client before it', '''
    <message type='chat' to='{bob}' id='{id}'><body>[Corrected] hello</body><replace xmlns='urn:xmpp:message-correct:0' id='c1'/>
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-correct:0'><body start='0' end='12'/></fallback></message>''',
       text('hello', replaces='c1'))

# Retractions: XEP-0424, XEP-0425 ----------------------------------------------------------------------------------------

vector('retraction', '''
    <message type='chat' to='{bob}' id='{id}'><retract xmlns='urn:xmpp:message-retract:1' id='r1'/>
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/><body>alice took something back</body>
    <store xmlns='urn:xmpp:hints'/></message>''',
       retraction('r1'))
vector('retraction of the first form', '''
    <message type='chat' to='{bob}' id='{id}'><body>taken back</body><fallback xmlns='urn:xmpp:fallback:0'/>
    <apply-to xmlns='urn:xmpp:fasten:0' id='r1'><retract xmlns='urn:xmpp:message-retract:0'/></apply-to></message>''',
       retraction('r1'))
vector('retraction without type id and body', '''
    <message to='{bob}'><retract xmlns='urn:xmpp:message-retract:1' id='r1'/></message>''',
       retraction('r1', type='normal'))
vector('retraction that is a correction too', '''
    <message type='chat' to='{bob}' id='{id}'><body>/me took it back</body><retract xmlns='urn:xmpp:message-retract:1' id='s1'/>
    <replace xmlns='urn:xmpp:message-correct:0' id='s1'/><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/>
    </message>''',
       retraction('s1'))
vector('retraction in an encrypted conversation', '''
    <message type='chat' to='{bob}' id='{id}'><retract xmlns='urn:xmpp:message-retract:1' id='r1'/><encrypted
    xmlns='eu.siacs.conversations.axolotl'><header sid='7'/><payload>AA==</payload></encrypted><body>placeholder</body></message>''',
       retraction('r1'))
vector('retraction in a room', '''
    <message type='groupchat' to='{room}' id='{id}'><retract xmlns='urn:xmpp:message-retract:1' id='77'/>
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/><body>/me retracted a message</body></message>''',
       retraction('77', **{'of-stanza': 'true'}), way='room',
       differs="In a room the specification names the room's stanza-id; a client that names its own id cannot be told from it.")
vector('retraction by a moderator', '''
    <message type='groupchat' from='{hall}' to='{phone}' id='{id}'><retract xmlns='urn:xmpp:message-retract:1' id='77'>
    <moderated by='{hall}/eve' xmlns='urn:xmpp:message-moderate:1'/><reason>long and public</reason></retract></message>''',
       retraction('77', by='room', **{'of-stanza': 'true'}), way='gateway')
vector('retraction by a moderator in the first form', '''
    <message type='groupchat' from='{hall}' to='{phone}' id='{id}'><apply-to xmlns='urn:xmpp:fasten:0' id='77'><moderated
    xmlns='urn:xmpp:message-moderate:0' by='{hall}/eve'><retract xmlns='urn:xmpp:message-retract:0'/><reason>why</reason></moderated>
    </apply-to></message>''',
       retraction('77', by='room', **{'of-stanza': 'true'}), way='gateway')
vector('retraction by a moderator in both forms', '''
    <message type='groupchat' from='{hall}' to='{phone}' id='{id}'><apply-to xmlns='urn:xmpp:fasten:0' id='77'><moderated
    xmlns='urn:xmpp:message-moderate:0' by='{hall}/eve'><retract xmlns='urn:xmpp:message-retract:0'/></moderated></apply-to>
    <retract xmlns='urn:xmpp:message-retract:1' id='77'/></message>''',
       retraction('77', by='room', **{'of-stanza': 'true'}), way='gateway')
vector('retraction in the name of a moderator by an occupant', '''
    <message type='groupchat' from='{hall}/alice' to='{phone}' id='{id}'><apply-to xmlns='urn:xmpp:fasten:0' id='77'><moderated
    xmlns='urn:xmpp:message-moderate:0' by='{hall}/eve'><retract xmlns='urn:xmpp:message-retract:0'/></moderated></apply-to>
    <body>never mind</body></message>''',
       way='gateway')

# Reactions: XEP-0444 ----------------------------------------------------------------------------------------------------

vector('reaction', '''
    <message type='chat' to='{bob}' id='{id}'><reactions xmlns='urn:xmpp:reactions:0' id='b7'><reaction>👍</reaction></reactions>
    <store xmlns='urn:xmpp:hints'/></message>''')
vector('reaction with a body', '''
    <message type='chat' to='{bob}' id='{id}'><reactions xmlns='urn:xmpp:reactions:0' id='b7'><reaction>👍</reaction></reactions>
    <body>&gt; see you&#10;&#10;👍</body><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reactions:0'><body/></fallback>
    <store xmlns='urn:xmpp:hints'/></message>''')
vector('reaction taken away', '''
    <message type='chat' to='{bob}' id='{id}'><reactions xmlns='urn:xmpp:reactions:0' id='b7'/></message>''')
vector('reaction beside an encrypted payload', '''
    <message type='chat' to='{bob}' id='{id}'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='7'/><payload>AA==</payload>
    </encrypted><encryption xmlns='urn:xmpp:eme:0' name='OMEMO' namespace='eu.siacs.conversations.axolotl'/><reactions
    xmlns='urn:xmpp:reactions:0' id='b7'><reaction>👍</reaction></reactions><store xmlns='urn:xmpp:hints'/></message>''')
vector('reaction in a room', '''
    <message type='groupchat' to='{room}' id='{id}'><reactions xmlns='urn:xmpp:reactions:0' id='b7'><reaction>👍</reaction></reactions>
    <body>👍</body></message>''', way='room')

# Replies: XEP-0461, and the ranges of XEP-0428 --------------------------------------------------------------------------

REPLY = "<reply xmlns='urn:xmpp:reply:0' to='{bob}/p' id='b1'/>"
vector('reply', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea 🍵?&#10;yes</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='9'/></fallback></message>''',
       text('yes'))
vector('reply whose client counts UTF-16 units', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea 🍵?&#10;yes</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='10'/></fallback></message>''',
       text('yes'))
vector('reply that counts UTF-16 units behind the end', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; 🍵🍵🍵&#10;y</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='9'/></fallback></message>''',
       text('y'))
vector('reply in the older namespace', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea?&#10;yes</body>{REPLY}
    <fallback xmlns='urn:xmpp:feature-fallback:0' for='urn:xmpp:reply:0'><body start='0' end='7'/></fallback></message>''',
       text('yes'))
vector('reply with an empty line after the quotation', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea?&#10;&#10;yes</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='8'/></fallback></message>''',
       text('yes'))
vector('reply with half a range', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea?&#10;yes</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0'/></fallback></message>''',
       text('> Tea?\nyes'))
vector('reply with a range that is no range', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea?&#10;yes</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='9' end='3'/><body start='-4' end='5'/><body
    start='x' end='5'/></fallback></message>''',
       text('> Tea?\nyes'))
vector('reply with a range that ends far behind the body', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>yes and no</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='3' end='4000'/></fallback></message>''',
       text('yes'))
vector('reply with several ranges', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>ab12cd34ef</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='6' end='8'/><body start='2' end='3'/><body
    start='2' end='4'/></fallback></message>''',
       text('abcdef'))
vector('reply that is nothing but its quotation', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea?</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body/></fallback></message>''',
       differs='A message that is nothing but fallback is no message, also where a client would still say that somebody wrote.')
vector('reply without a range', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea?&#10;yes</body>{REPLY}</message>''',
       text('> Tea?\nyes'),
       differs='Only what is marked as fallback is cut; a quotation that is part of the text stays.')
vector('reply with a long quotation', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; {'你' * 3000}&#10;yes</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='3003'/></fallback></message>''',
       text('yes'),
       differs='The range is cut before the body is cut to 8 KiB.')
vector('ranges of two languages', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>&gt; Tea or coffee?&#10;tea please</body><body xml:lang='de'>&gt; Tee?&#10;Tee
    bitte</body>{REPLY}<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='17'/><body xml:lang='de'
    start='0' end='7'/></fallback></message>''',
       text(bodies=[(None, 'tea please'), ('de', 'Tee bitte')]))
vector('range of the fallback\'s own language', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>tea please</body><body xml:lang='de'>&gt; Tee?&#10;Tee bitte</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0' xml:lang='DE'><body start='0' end='7'/></fallback></message>''',
       text(bodies=[(None, 'tea please'), ('de', 'Tee bitte')]))
vector('all of the text in one language is fallback', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>tea please</body><body xml:lang='de'>&gt; Tee?</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body xml:lang='de'/></fallback></message>''',
       text('tea please'))
vector('range without a language, and no text without one', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body xml:lang='de'>&gt; Tee?&#10;Tee bitte</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='7'/></fallback></message>''',
       text(bodies=[('de', 'Tee bitte')]))
vector('range in a language that no text has', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>tea please</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body xml:lang='fr' start='0' end='4'/></fallback></message>''',
       text('tea please'))
vector('range in the language of the stanza', f'''
    <message type='chat' to='{{bob}}' id='{{id}}' xml:lang='en'><body>&gt; Tea?&#10;tea please</body>{REPLY}
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body xml:lang='en' start='0' end='7'/></fallback></message>''',
       text('tea please'))
vector('range of a subject', '''
    <message from='{gateway}' to='{bob}' id='{id}'><subject>Re: Bill</subject><body>due today</body>
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><subject start='0' end='4'/></fallback></message>''',
       text('Bill — due today', type='normal'), way='gateway')
vector('fallback for something unknown stays', '''
    <message type='groupchat' to='{room}' id='{id}'><body>Poll: tea or coffee?</body><poll xmlns='urn:fluux:poll:0'/>
    <fallback xmlns='urn:xmpp:fallback:0' for='urn:fluux:poll:0'><body/></fallback></message>''',
       text('Poll: tea or coffee?'), way='room')
vector('fallback for nothing in particular', '''
    <message type='chat' to='{bob}' id='{id}'><body>your client cannot show this</body><fallback xmlns='urn:xmpp:fallback:0'/></message>''')
vector('fallback of an encrypted reply', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='7'/><payload>AA==</payload>
    </encrypted>{REPLY}<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body/></fallback><body>placeholder</body></message>''',
       encrypted(), differs='The range counts the hidden text, so it says nothing about the outer body.')

# Spoilers: XEP-0382 -----------------------------------------------------------------------------------------------------

vector('spoiler with a hint', '''
    <message type='chat' to='{bob}' id='{id}'><body>the gardener</body><spoiler xmlns='urn:xmpp:spoiler:0'>end of the film</spoiler>
    </message>''',
       text('end of the film', hide='true'))
vector('spoiler without a hint', '''
    <message type='chat' to='{bob}' id='{id}'><body>the gardener</body><spoiler xmlns='urn:xmpp:spoiler:0'/></message>''',
       text(hide='true'))
vector('spoiler with hints in two languages', '''
    <message type='chat' to='{bob}' id='{id}'><body>the gardener</body><spoiler xmlns='urn:xmpp:spoiler:0' xml:lang='de'>Ende</spoiler>
    <spoiler xmlns='urn:xmpp:spoiler:0'>end</spoiler></message>''',
       text(bodies=[(None, 'end'), ('de', 'Ende')], hide='true'))

# Files, stickers, places ------------------------------------------------------------------------------------------------

vector('file whose description comes alone', '''
    <message type='chat' to='{bob}' id='{id}'><file-sharing xmlns='urn:xmpp:sfs:0' disposition='inline'><file
    xmlns='urn:xmpp:file:metadata:0'><media-type>image/jpeg</media-type><name>lake.jpg</name></file></file-sharing>
    <store xmlns='urn:xmpp:hints'/></message>''',
       text(kind='image', file='lake.jpg'))
vector('file whose address comes later', '''
    <message type='chat' to='{bob}' id='{id}'><body>https://up.example.com/9/lake.jpg</body><x xmlns='jabber:x:oob'>
    <url>https://up.example.com/9/lake.jpg</url></x><attach-to xmlns='urn:xmpp:message-attaching:1' id='f1'/>
    <sources xmlns='urn:xmpp:sfs:0'/></message>''')
vector('file with a caption', '''
    <message type='chat' to='{bob}' id='{id}'><body>look https://up.example.com/7/v.opus</body><x xmlns='jabber:x:oob'>
    <url>https://up.example.com/7/v.opus</url></x><fallback xmlns='urn:xmpp:fallback:0' for='jabber:x:oob'><body start='5' end='36'/>
    </fallback></message>''',
       text('look', kind='audio', file='v.opus'))
vector('file with a caption whose client counts UTF-16 units', '''
    <message type='chat' to='{bob}' id='{id}'><body>🍵🍵 look https://up.example.com/7/v.opus</body><x xmlns='jabber:x:oob'>
    <url>https://up.example.com/7/v.opus</url></x><fallback xmlns='urn:xmpp:fallback:0' for='jabber:x:oob'><body start='10' end='41'/>
    </fallback></message>''',
       text('🍵🍵 look', kind='audio', file='v.opus'))
vector('file by its address', '''
    <message type='chat' to='{bob}' id='{id}'><body>https://up.example.com/7/my%20lake.PNG?x=1</body><x xmlns='jabber:x:oob'>
    <url>https://up.example.com/7/my%20lake.PNG?x=1</url></x></message>''',
       text(kind='image', file='my lake.PNG'))
vector('file by its address without a body', '''
    <message type='chat' to='{bob}' id='{id}'><x xmlns='jabber:x:oob'><url>https://up.example.com/7/a.bin</url></x></message>''',
       text(kind='file', file='a.bin'))
vector('file that PGP encrypts', '''
    <message type='chat' to='{bob}' id='{id}'><body>https://up.example.com/7/a.mp4.pgp</body><x xmlns='jabber:x:oob'>
    <url>https://up.example.com/7/a.mp4.pgp</url></x></message>''',
       text(kind='video', file='a.mp4'))
vector('link that a client describes', '''
    <message type='chat' to='{bob}' id='{id}'><body>read this https://example.com/a</body><x xmlns='jabber:x:oob'>
    <url>https://example.com/a</url></x></message>''',
       text('read this https://example.com/a'))
vector('link alone', '''
    <message type='chat' to='{bob}' id='{id}'><body>https://example.com/a.jpg</body></message>''',
       text('https://example.com/a.jpg'))
KEY = 'a' * 88
vector('file whose address holds its key', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>aesgcm://up.example.com/x.mp4#{KEY}</body></message>''',
       text(kind='video', file='x.mp4'))
vector('file whose address holds its key with a preview', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>aesgcm://up.example.com/x.jpg#{KEY}&#10;data:image/jpeg,AAAA</body></message>''',
       text(kind='image', file='x.jpg'))
vector('file whose web address holds its key', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>https://up.example.com/x.gif#{KEY}aaaaaaaa</body></message>''',
       text(kind='gif', file='x.gif'))
vector('file whose address holds its key within a text', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>here aesgcm://up.example.com/x.pdf#{KEY} it is</body></message>''',
       text('here it is', kind='file', file='x.pdf'))
vector('file by all three specifications', '''
    <message type='chat' to='{bob}' id='{id}'><body>https://up.example.com/7/a.pdf</body><x xmlns='jabber:x:oob'>
    <url>https://up.example.com/7/a.pdf</url></x><reference xmlns='urn:xmpp:reference:0' type='data' uri='cid:1'><media-sharing
    xmlns='urn:xmpp:sims:1'><file xmlns='urn:xmpp:jingle:apps:file-transfer:5'><media-type>application/pdf</media-type><name>Bill.pdf</name>
    </file><sources><reference xmlns='urn:xmpp:reference:0' type='data' uri='https://up.example.com/7/a.pdf'/></sources></media-sharing>
    </reference><file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'><media-type>application/pdf</media-type>
    <name>Bill.pdf</name></file><sources><url-data xmlns='http://jabber.org/protocol/url-data' target='https://up.example.com/7/a.pdf'/>
    </sources></file-sharing></message>''',
       text(kind='file', file='Bill.pdf'))
vector('file by XEP-0385 alone', '''
    <message type='chat' to='{bob}' id='{id}'><body>https://up.example.com/7/a</body><reference xmlns='urn:xmpp:reference:0' type='data'>
    <media-sharing xmlns='urn:xmpp:sims:1'><file xmlns='urn:xmpp:jingle:apps:file-transfer:4'><media-type>image/gif</media-type></file>
    <sources><reference xmlns='urn:xmpp:reference:0' type='data' uri='https://up.example.com/7/a'/></sources></media-sharing></reference>
    </message>''',
       text(kind='gif', file='a'))
vector('link preview by XEP-0385', '''
    <message type='chat' to='{bob}' id='{id}'><body>https://example.com/news</body><reference xmlns='urn:xmpp:reference:0' type='data'>
    <media-sharing xmlns='urn:xmpp:sims:1'><file xmlns='urn:xmpp:jingle:apps:file-transfer:4'><name>News</name></file>
    <sources><reference xmlns='urn:xmpp:reference:0' type='data' uri='https://example.com/news'/></sources></media-sharing></reference>
    </message>''',
       text('https://example.com/news'))
vector('file described beside its address', '''
    <message type='chat' to='{bob}' id='{id}'><body>our boat&#10;https://up.example.com/7/a</body><x xmlns='jabber:x:oob'>
    <url>https://up.example.com/7/a</url></x><fallback xmlns='urn:xmpp:fallback:0' for='jabber:x:oob'><body start='9' end='35'/></fallback>
    <file xmlns='urn:xmpp:file:metadata:0'><media-type>video/webm</media-type><name>boat.webm</name></file></message>''',
       text('our boat', kind='video', file='boat.webm'))
vector('file with a description only', '''
    <message type='chat' to='{bob}' id='{id}'><file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'>
    <media-type>image/png</media-type><name>b.png</name><desc>our boat</desc></file></file-sharing></message>''',
       text('our boat', kind='image', file='b.png'))
for sender, name in (('Conversations', 'RECORDING_20261126_101500123.m4a'), ('Gajim', 'voice-message-101500.m4a')):
    vector(f'voice message of {sender}', f'''
        <message type='chat' to='{{bob}}' id='{{id}}'><body>https://up.example.com/7/{name}</body><x xmlns='jabber:x:oob'>
        <url>https://up.example.com/7/{name}</url></x></message>''',
           text(kind='voice', file=name))
vector('sticker', '''
    <message type='chat' to='{bob}' id='{id}'><body>🙂</body><sticker xmlns='urn:xmpp:stickers:0' pack='p'/><file-sharing
    xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'><media-type>image/png</media-type><name>s.png</name></file></file-sharing>
    </message>''',
       text('🙂', kind='sticker'))
vector('sticker whose body is an address', '''
    <message type='chat' to='{bob}' id='{id}'><body>https://up.example.com/s.png</body><sticker xmlns='urn:xmpp:stickers:0'
    pack='p'/></message>''',
       text(kind='sticker'))
vector('sticker as a text with a picture', '''
    <message type='chat' to='{bob}' id='{id}'><body>sent a sticker</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body
    xmlns='http://www.w3.org/1999/xhtml'><img src='cid:sha1+8f35fef110ffc5df08d579a50083ff9308fb6242@bob.xmpp.org' alt='s'/></body></html>
    </message>''',
       text('sent a sticker'))
vector('picture within XHTML', '''
    <message type='chat' to='{bob}' id='{id}'><html xmlns='http://jabber.org/protocol/xhtml-im'><body
    xmlns='http://www.w3.org/1999/xhtml'><img src='cid:sha1+8f35fef110ffc5df08d579a50083ff9308fb6242@bob.xmpp.org' alt='s'/></body></html>
    </message>''',
       text(kind='image'))
vector('place', '''
    <message type='chat' to='{bob}' id='{id}'><body> geo:52.5,-13.4;u=20 </body></message>''',
       text(kind='location'))
vector('place that a range hides', '''
    <message type='chat' to='{bob}' id='{id}'><body>geo:52.5,13.4</body><x xmlns='jabber:x:oob'><url>geo:52.5,13.4</url></x>
    <fallback xmlns='urn:xmpp:fallback:0' for='jabber:x:oob'><body/></fallback></message>''',
       text(kind='location'))
vector('place within a text', '''
    <message type='chat' to='{bob}' id='{id}'><body>meet me at geo:52.5,13.4</body></message>''',
       text('meet me at geo:52.5,13.4'))
vector('preview of a link', '''
    <message type='chat' to='{bob}' id='{id}'><apply-to xmlns='urn:xmpp:fasten:0' id='a1'><meta xmlns='http://www.w3.org/1999/xhtml'
    property='og:title' content='News'/></apply-to><no-store xmlns='urn:xmpp:hints'/></message>''')

# Texts ------------------------------------------------------------------------------------------------------------------

vector('action', '''
    <message type='groupchat' to='{room}' id='{id}'><body>/me waves</body></message>''',
       text('/me waves'), way='room', differs='The relay puts the name in; the module does not touch the text.')
vector('two languages', '''
    <message type='chat' to='{bob}' id='{id}'><body xml:lang='de'>Hallo</body><body>Hello</body></message>''',
       text(bodies=[(None, 'Hello'), ('de', 'Hallo')]))
vector('two languages and none without', '''
    <message type='chat' to='{bob}' id='{id}'><body xml:lang='de'>Hallo</body><body xml:lang='fr'>Bonjour</body></message>''',
       text(bodies=[('de', 'Hallo'), ('fr', 'Bonjour')]))
vector('six languages', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><body>0</body>{''.join(f"<body xml:lang='{lang}'>{lang}</body>" for lang in
    ('de', 'fr', 'es', 'pt', 'ru'))}</message>''',
       text(bodies=[(None, '0'), ('de', 'de'), ('fr', 'fr'), ('es', 'es')]))
vector('two bodies in one language', '''
    <message type='chat' to='{bob}' id='{id}'><body>first</body><body>second</body></message>''',
       text('first'))
vector('body of blanks', '''
    <message type='chat' to='{bob}' id='{id}'><body> &#x200b;&#xa0;&#x2060;&#xfeff;&#x3164;&#10; </body></message>''')
vector('body with an end of blanks', '''
    <message type='chat' to='{bob}' id='{id}'><body>hello &#9;  &#9;&#10;</body></message>''',
       text('hello'))
vector('body with control characters', '''
    <message type='chat' to='{bob}' id='{id}'><body>a&#x85;b&#x9b;c&#x2028;d&#9;e</body></message>''',
       text('a b c d\te'))
vector('body of control characters', '''
    <message type='chat' to='{bob}' id='{id}'><body>&#x85;&#x9b;&#x2028;</body></message>''')
vector('subject and body', '''
    <message from='{gateway}' to='{bob}' id='{id}'><subject>Bill</subject><body>due today</body></message>''',
       text('Bill — due today', type='normal'), way='gateway')
vector('subject alone', '''
    <message type='chat' to='{bob}' id='{id}'><subject>Bill</subject></message>''',
       text('Bill'))
vector('subject of a room', '''
    <message type='groupchat' to='{room}' id='{id}'><subject>new topic</subject></message>''', way='room')
vector('subject and body in a room', '''
    <message type='groupchat' from='{hall}/alice' to='{phone}' id='{id}'><subject>topic</subject><body>words</body></message>''',
       text('words'), way='gateway')
vector('error', '''
    <message type='error' to='{bob}' id='{id}'><body>hi</body><error type='cancel'><service-unavailable
    xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>''')
vector('headline', '''
    <message type='headline' to='{bob}' id='{id}'><body>news</body></message>''')
vector('no type and no id', '''
    <message to='{bob}'><body>no type, no id</body></message>''',
       text('no type, no id', type='normal'))
vector('origin id', '''
    <message type='chat' to='{bob}' id='{id}'><body>hello</body><origin-id xmlns='urn:xmpp:sid:0' id='o{id}'/></message>''',
       text('hello', **{'origin-id': 'o{id}'}))
vector('late after a reconnection', '''
    <message type='chat' to='{bob}' id='{id}'><body>late</body><delay xmlns='urn:xmpp:delay' from='{alice}'
    stamp='2026-11-25T22:40:00Z'/></message>''',
       text('late', stamp='1795646400000'))
vector('late without a word of who held it', '''
    <message type='chat' to='{bob}' id='{id}'><body>late</body><delay xmlns='urn:xmpp:delay'
    stamp='2026-11-25T22:40:00.500Z'/></message>''',
       text('late', stamp='1795646400500'))
vector('late in the older form', '''
    <message type='chat' to='{bob}' id='{id}'><body>late</body><x xmlns='jabber:x:delay' stamp='20261125T22:40:00'/></message>''',
       text('late', stamp='1795646400000'))
vector('late without a time', '''
    <message type='chat' to='{bob}' id='{id}'><body>late</body><delay xmlns='urn:xmpp:delay' stamp='yesterday'/></message>''',
       text('late'))
vector('no store hint', '''
    <message type='chat' to='{bob}' id='{id}'><body>between us</body><no-store xmlns='urn:xmpp:hints'/></message>''',
       text('between us'))
vector('chat state beside a text', '''
    <message type='chat' to='{bob}' id='{id}'><body>hello</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>''',
       text('hello'))
vector('chat state alone', '''
    <message type='chat' to='{bob}' id='{id}'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>''')
vector('text while it is typed', '''
    <message type='chat' to='{bob}' id='{id}'><rtt xmlns='urn:xmpp:rtt:0' seq='1'><t>h</t></rtt></message>''')
vector('styled text', '''
    <message type='chat' to='{bob}' id='{id}'><body>*bold* `code`</body><unstyled xmlns='urn:xmpp:styling:0'/></message>''',
       text('*bold* `code`'))
vector('XHTML beside a body', '''
    <message type='chat' to='{bob}' id='{id}'><body>hello</body><html xmlns='http://jabber.org/protocol/xhtml-im'><body
    xmlns='http://www.w3.org/1999/xhtml'><p>hello <b>you</b></p></body></html></message>''',
       text('hello'))
vector('XHTML without a body', '''
    <message type='chat' to='{bob}' id='{id}'><html xmlns='http://jabber.org/protocol/xhtml-im'><body
    xmlns='http://www.w3.org/1999/xhtml'><p>hello <b>you</b></p></body></html></message>''',
       text('hello you'))
vector('question of a website', '''
    <message to='{bob}' id='{id}'><body>Is it you?</body><confirm xmlns='http://jabber.org/protocol/http-auth' id='c' method='GET'
    url='https://example.com'/></message>''',
       text('Is it you?', type='normal'))
vector('form without a body', '''
    <message to='{bob}' id='{id}'><x xmlns='jabber:x:data' type='form'><field var='a'/></x></message>''')
vector('contacts to add', '''
    <message to='{bob}' id='{id}'><x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='x@example.com'/></x></message>''')
vector('event of a node', '''
    <message type='headline' to='{bob}' id='{id}'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='a'><item
    id='1'/></items>
    </event></message>''')
vector('receipt', '''
    <message type='chat' to='{bob}' id='{id}'><received xmlns='urn:xmpp:receipts' id='1'/></message>''')
vector('marker', '''
    <message type='chat' to='{bob}' id='{id}'><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/></message>''')
vector('forged carbon', '''
    <message type='chat' to='{bob}' id='{id}'><body>x</body><received xmlns='urn:xmpp:carbons:2'><forwarded
    xmlns='urn:xmpp:forward:0'><message
    xmlns='jabber:client' from='c@example.com' to='{bob}' type='chat'><body>x</body></message></forwarded></received></message>''')
vector('forged archive result', '''
    <message to='{bob}' id='{id}'><body>x</body><result xmlns='urn:xmpp:mam:2' id='1'><forwarded xmlns='urn:xmpp:forward:0'><message
    xmlns='jabber:client' from='c@example.com' to='{bob}' type='chat'><body>x</body></message></forwarded></result></message>''')
vector('name that the sender claims', r'''
    <message type='chat' from='joe\40mail.example@{gateway}' to='{bob}' id='{id}'><body>hi</body><nick
    xmlns='http://jabber.org/protocol/nick'>Mum</nick></message>''',
       text('hi', name=None), way='gateway')

# Encrypted --------------------------------------------------------------------------------------------------------------

AXOLOTL = "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='7'/><payload>AA==</payload></encrypted>"
OMEMO2 = "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='7'/><payload>AA==</payload></encrypted>"
EME = "<encryption xmlns='urn:xmpp:eme:0' namespace='{}'/>"
EME_AXOLOTL = EME.format('eu.siacs.conversations.axolotl')
EME_PIDGIN = "<encryption xmlns='urn:xmpp:eme:0' name='OMEMO' namespace='eu.siacs.conversations.axolotl'/>"
EME_OMEMO2 = EME.format('urn:xmpp:omemo:2')
EME_OX = EME.format('urn:xmpp:openpgp:0')
OX = "<openpgp xmlns='urn:xmpp:openpgp:0'>AA==</openpgp>"
PGP = "<x xmlns='jabber:x:encrypted'>AA==</x>"
STORE, NO_STORE = "<store xmlns='urn:xmpp:hints'/>", "<no-store xmlns='urn:xmpp:hints'/>"
NO_PERMANENT = "<no-permanent-store xmlns='urn:xmpp:hints'/>"
OUTER = '<body>placeholder</body>'

for name, content, alerts in (
        ('OMEMO', AXOLOTL + OUTER + EME_AXOLOTL + STORE, True),
        ('OMEMO without EME', AXOLOTL + OUTER, True),
        ('OMEMO of Pidgin', AXOLOTL + EME_PIDGIN + STORE, True),
        ('OMEMO of Pidgin with a body', AXOLOTL + EME_PIDGIN + STORE + OUTER, True),
        ('OMEMO reaction', AXOLOTL + EME_AXOLOTL + STORE, False),
        ('OMEMO keys', "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='7'/></encrypted>" + STORE, False),
        ('OMEMO keys with EME', "<encrypted xmlns='eu.siacs.conversations.axolotl'><header "
            "sid='7'/></encrypted>" + EME_PIDGIN + STORE, False),
        ('OMEMO 2', OMEMO2 + OUTER + EME_OMEMO2 + STORE, True),
        ('OMEMO 2 of Kaidan', OMEMO2 + OUTER + "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:omemo:2'><body/></fallback>", True),
        ('OMEMO 2 typing', OMEMO2 + EME_OMEMO2 + NO_STORE, False),
        ('OMEMO 2 typing of Converse', OMEMO2 + EME_OMEMO2 + NO_STORE + NO_PERMANENT, False),
        ('OMEMO 2 marker', OMEMO2 + EME_OMEMO2, False),
        ('OMEMO 2 reaction of Kaidan', OMEMO2 + STORE, False),
        ('OMEMO 2 keys', "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='7'/></encrypted>" + STORE, False),
        ('OMEMO of both kinds', AXOLOTL + OMEMO2 + EME_OMEMO2 + OUTER + STORE, True),
        ('OMEMO reaction of both kinds', AXOLOTL + OMEMO2 + EME_PIDGIN + STORE, False),
        ('OX', OX + OUTER + EME_OX, True),
        ('OX without a body', OX + EME_OX, True),
        ('OX reaction', OX + EME_OX + STORE, False),
        ('OX preview', OX + EME_OX + NO_STORE, False),
        ('OX signature', OX, False),
        ('PGP', PGP + OUTER, True),
        ('PGP with EME', PGP + OUTER + EME.format('jabber:x:encrypted'), True),
        ('unknown encryption', EME.format('urn:example:secret') + OUTER, True),
        ('unknown encryption without a body', EME.format('urn:example:secret'), False)):
    vector(f'encrypted: {name}', f"<message type='chat' to='{{bob}}' id='{{id}}'>{content}</message>", *[encrypted()] * alerts)
vector('encrypted: OMEMO with a body that is not to be stored', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'>{AXOLOTL + OUTER + EME_AXOLOTL + NO_STORE}</message>''',
       encrypted(), differs='A hint decides only where there is no outer body: private messages of rooms carry it too.')
vector('encrypted: OMEMO in a room', f"<message type='groupchat' to='{{room}}' id='{{id}}'>{AXOLOTL + OUTER + EME_AXOLOTL}</message>",
       encrypted(), way='room')
for name, body, event in (
        ('data', '?OTR:AAMDAAAA.', encrypted()), ('data of version 2', '?OTR:AAIDAAAA.', encrypted()),
        ('question', '?OTRv23?', encrypted()), ('question of version 1', '?OTR?v23?', encrypted()),
        ('first part', '?OTR|5a73a599|27e31597,00001,00003,?OTR:AAMDA,', encrypted()),
        ('next part', '?OTR|5a73a599|27e31597,00002,00003,AAAA,', None),
        ('first part of version 2', '?OTR,1,3,?OTR:AAIDA,', encrypted()), ('next part of version 2', '?OTR,2,3,AAAA,', None),
        ('exchange', '?OTR:AAMCAAAA.', None), ('exchange of version 2', '?OTR:AAIKAAAA.', None),
        ('error', '?OTR Error: no keys', None)):
    vector(f'encrypted: OTR {name}', f"<message type='chat' to='{{bob}}' id='{{id}}'><body>{body}</body>{NO_STORE}</message>",
           *[event] * bool(event))

# Groups -----------------------------------------------------------------------------------------------------------------

vector('group message', '''
    <message type='groupchat' to='{room}' id='{id}'><body>lunch?</body></message>''',
       text('lunch?'), way='room')
vector('group message to an absent occupant', '''
    <message type='groupchat' from='{hall}/alice' to='{bob}' id='{id}'><body>lunch?</body></message>''',
       text('lunch?'), way='gateway')
vector('group message of a MIX channel', '''
    <message from='ch@{gateway}/8f2' to='{bob}' type='groupchat' id='{id}'><body>lunch?</body><mix xmlns='urn:xmpp:mix:core:1'>
    <nick>alice</nick><jid>alice@example.com</jid></mix></message>''',
       text('lunch?', nick='alice', room='ch@{gateway}'), way='gateway')
vector('own group message of a MIX channel', '''
    <message from='ch@{gateway}/8f2' to='{bob}' type='groupchat' id='{id}'><body>lunch?</body><mix xmlns='urn:xmpp:mix:core:1'>
    <nick>bob</nick><jid>{bob}</jid></mix></message>''', way='gateway')
MUCSUB = '''<message from='{hall}' to='{bob}'><event xmlns='http://jabber.org/protocol/pubsub#event'><items node='urn:xmpp:mucsub:nodes:%s'>
    <item id='88'><message xmlns='jabber:client' type='groupchat' from='%s/alice' id='{id}'>%s</message></item></items></event></message>'''
vector('group message to a subscriber', MUCSUB % ('messages', '{hall}', '<body>lunch?</body>'),
       text('lunch?', type='groupchat', id='{id}', room='{hall}', nick='alice', **{'from': '{hall}/alice'}), way='gateway')
vector('group message to a subscriber that is no message', MUCSUB % ('subject', '{hall}', '<subject>topic</subject>'), way='gateway')
vector('group message to a subscriber in the name of another room', MUCSUB % ('messages', 'other@{gateway}', '<body>lunch?</body>'),
       way='gateway')
vector('room service text with a status', '''
    <message type='groupchat' from='{hall}' to='{phone}' id='{id}'><body>This room is logged</body><x
    xmlns='http://jabber.org/protocol/muc#user'><status code='170'/></x></message>''', way='gateway')
vector('room service text', '''
    <message type='groupchat' from='{hall}' to='{phone}' id='{id}'><body>mode (+o alice) by bob</body></message>''', way='gateway')
vector('room service text as a chat', '''
    <message type='chat' from='{hall}' to='{phone}' id='{id}'><body>You may not do that</body></message>''', way='gateway')
vector('request for voice', '''
    <message from='{hall}' to='{phone}' id='{id}'><body>x asks for voice</body><x xmlns='jabber:x:data' type='form'><field var='FORM_TYPE'
    type='hidden'><value>http://jabber.org/protocol/muc#request</value></field></x></message>''', way='gateway')
vector('captcha', '''
    <message from='robot@{gateway}' to='{bob}' id='{id}'><body>Visit https://example.com/captcha</body><captcha xmlns='urn:xmpp:captcha'>
    <x xmlns='jabber:x:data' type='form'/></captcha></message>''', way='gateway')
vector('history of a room', '''
    <message type='groupchat' from='{hall}/alice' to='{phone}' id='{id}'><body>old</body><delay xmlns='urn:xmpp:delay' from='{hall}'
    stamp='2026-11-01T10:00:00Z'/></message>''', way='gateway')
vector('history of a room with its occupant', '''
    <message type='groupchat' from='{hall}/alice' to='{phone}' id='{id}'><body>old</body><delay xmlns='urn:xmpp:delay' from='{hall}/alice'
    stamp='2026-11-01T10:00:00Z'/></message>''', way='gateway')
vector('live group message with the time of a gateway', '''
    <message type='groupchat' from='{hall}/alice' to='{phone}' id='{id}'><body>old</body><delay xmlns='urn:xmpp:delay' from='{gateway}'
    stamp='2026-11-01T10:00:00Z'/></message>''',
       text('old', stamp='1793527200000'), way='gateway')
vector('group message under the own nick', '''
    <message type='groupchat' from='{hall}/bob' to='{phone}' id='{id}'><body>mine</body></message>''', way='gateway')
vector('group message with the own occupant-id under another nick', '''
    <message type='groupchat' from='{hall}/bob-desk' to='{phone}' id='{id}'><body>hi all</body><occupant-id
    xmlns='urn:xmpp:occupant-id:0' id='Ox'/>
    </message>''', way='gateway',
       differs='The answer is reported when a client of the account sends it, not when the room reflects it.')
vector('group message with the occupant-id of another', '''
    <message type='groupchat' from='{hall}/bob-desk' to='{phone}' id='{id}'><body>hi all</body><occupant-id
    xmlns='urn:xmpp:occupant-id:0' id='Oy'/>
    </message>''',
       text('hi all'), way='gateway')
vector('private message of a room', '''
    <message type='chat' from='{hall}/alice' to='{phone}' id='{id}'><body>psst</body><x
    xmlns='http://jabber.org/protocol/muc#user'/></message>''',
       text('psst', private='true'), way='gateway')
vector('private message of a room without a mark', '''
    <message type='chat' from='{hall}/alice' to='{phone}' id='{id}'><body>psst</body></message>''',
       text('psst', private='true'), way='gateway')
vector('chat with the mark of a private message', '''
    <message type='chat' from='alice@{gateway}/a' to='{phone}' id='{id}'><body>hi</body><x
    xmlns='http://jabber.org/protocol/muc#user'/></message>''',
       text('hi'), way='gateway')
vector('retraction of a private message of a room', '''
    <message type='chat' from='{hall}/alice' to='{phone}' id='{id}'><retract xmlns='urn:xmpp:message-retract:1' id='w1'/><x
    xmlns='http://jabber.org/protocol/muc#user'/><no-store xmlns='urn:xmpp:hints'/></message>''',
       retraction('w1', private='true'), way='gateway')

# Mentions ---------------------------------------------------------------------------------------------------------------

for name, content, mention in (
        ('nick', '<body>bob: tea?</body>', True),
        ('nick in capitals', '<body>tea, BOB?</body>', True),
        ('nick after an at sign', '<body>hey @bob</body>', True),
        ('nick in a longer word', '<body>ask bobby</body>', False),
        ('nick at the end of a longer word', '<body>a kebob</body>', False),
        ('nick beside letters of another script', '<body>éboby bobé жbob</body>', False),
        ('nick beside a script without spaces', '<body>看bob吧</body>', True),
        ('nick beside a sign', '<body>…bob🙂</body>', True),
        ('nick in a quoted line', '<body>&gt; bob said&#10;no</body>', False),
        ('nick in the range of a reply', "<body>bob wrote&#10;no</body><reply xmlns='urn:xmpp:reply:0' to='{room}/eve' id='1'/><fallback "
         "xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='10'/></fallback>", False),
        ('reply to me', "<body>yes</body><reply xmlns='urn:xmpp:reply:0' to='{room}/bob' id='1'/>", True),
        ('reply to my account', "<body>yes</body><reply xmlns='urn:xmpp:reply:0' to='{phone}' id='1'/>", True),
        ('reply to another', "<body>yes</body><reply xmlns='urn:xmpp:reply:0' to='{room}/eve' id='1'/>", False),
        ('reference to the account', "<body>you</body><reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{bob}'/>", True),
        ('reference to the occupant', "<body>you</body><reference xmlns='urn:xmpp:reference:0' type='mention' "
            "uri='xmpp:{room}/%62ob'/>", True),
        ('reference to another', "<body>you</body><reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{room}/eve'/>", False),
        ('reference to the room', "<body>all</body><reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:{room}'/>", True),
        ('reference to a file', "<body>you</body><reference xmlns='urn:xmpp:reference:0' type='data' uri='xmpp:{bob}'/>", False),
        ('everybody', "<body>all</body><mention-all xmlns='urn:fluux:mentions:0'/>", True),
        ('explicit by account', "<body>you</body><mention xmlns='urn:xmpp:mentions:0' jid='{bob}'/>", True),
        ('explicit of another', "<body>you</body><mention xmlns='urn:xmpp:mentions:0' jid='eve@example.com'/>", False),
        ('explicit of the room', "<body>all</body><mention xmlns='urn:xmpp:mentions:0' mentions='urn:xmpp:mentions:0#channel'/>", True),
        ('explicit of the moderators', "<body>help</body><mention xmlns='urn:xmpp:mentions:0' "
            "mentions='urn:xmpp:mentions:0#moderators'/>", False),
        ('explicit of the participants', "<body>all</body><mention xmlns='urn:xmpp:mentions:0' "
            "mentions='urn:xmpp:mentions:0#participants'/>", True),
        ('not to notify', "<body>I meant bob</body><mention xmlns='urn:xmpp:mentions:0' begin='8' end='11' "
            "jid='{bob}'><noping/></mention>", False),
        ('not to notify and to notify', "<body>I meant bob, bob</body><mention xmlns='urn:xmpp:mentions:0' jid='{bob}'><noping/></mention>"
         "<mention xmlns='urn:xmpp:mentions:0' jid='{bob}'/>", True)):
    shown = {'nick in a quoted line': '> bob said\nno', 'nick in the range of a reply': 'no'}.get(name)
    shown = shown or content[6:content.index('</body>')]
    vector(f'mention: {name}', f"<message type='groupchat' to='{{room}}' id='{{id}}'>{content}</message>",
           text(shown, **({'mention': 'true'} if mention else {})), way='room')
vector('mention: explicit by occupant-id', '''
    <message type='groupchat' from='{hall}/alice' to='{phone}' id='{id}'><body>you</body><mention xmlns='urn:xmpp:mentions:0'
    occupantid='Ox'/></message>''',
       text('you', mention='true'), way='gateway')
vector('mention: not to notify by occupant-id', '''
    <message type='groupchat' from='{hall}/alice' to='{phone}' id='{id}'><body>I meant bob</body><mention xmlns='urn:xmpp:mentions:0'
    begin='8'
    end='11' occupantid='Ox'><noping/></mention></message>''',
       text('I meant bob'), way='gateway')
vector('mention: reply to me in an encrypted room', f'''
    <message type='groupchat' to='{{room}}' id='{{id}}'>{AXOLOTL + OUTER}<reply xmlns='urn:xmpp:reply:0' to='{{room}}/bob'
    id='1'/></message>''',
       encrypted(mention='true'), way='room')
vector('mention: nick in the outer body of an encrypted message', f'''
    <message type='groupchat' to='{{room}}' id='{{id}}'>{AXOLOTL}<body>bob cannot read this</body></message>''',
       encrypted(), way='room')
vector('mention: within a spoiler', '''
    <message type='groupchat' to='{room}' id='{id}'><body>bob dies</body><spoiler xmlns='urn:xmpp:spoiler:0'>the end</spoiler></message>''',
       text('the end', hide='true', mention='true'), way='room')

# Calls ------------------------------------------------------------------------------------------------------------------

RTP = "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='{}'/>"
AUDIO, VIDEO = RTP.format('audio'), RTP.format('video')


def call(media=None, id=None, **attributes):
    return {'class': 'call', 'call': 'k{id}', **({'media': media} if media else {}), **attributes}


for name, content, event in (
        ('audio', f"<propose xmlns='urn:xmpp:jingle-message:0' id='k{{id}}'>{AUDIO}</propose>" + STORE, call('audio')),
        ('video first', f"<propose xmlns='urn:xmpp:jingle-message:0' id='k{{id}}'>{VIDEO + AUDIO}</propose>", call('audio video')),
        ('version 1', f"<propose xmlns='urn:xmpp:jingle-message:1' id='k{{id}}'>{AUDIO}</propose>", call('audio')),
        ('offer of a file', "<propose xmlns='urn:xmpp:jingle-message:0' id='k{id}'><description "
            "xmlns='urn:xmpp:jingle:apps:file-transfer:5'/></propose>", None),
        ('without an id', f"<propose xmlns='urn:xmpp:jingle-message:0'>{AUDIO}</propose>", None),
        ('with a body', f"<propose xmlns='urn:xmpp:jingle-message:0' id='k{{id}}'>{AUDIO}</propose><body>I call you</body>", call('audio')),
        ('withdrawn', f"<retract xmlns='urn:xmpp:jingle-message:0' id='k{{id}}'>{AUDIO}</retract>",
         {'class': 'call-ended', 'call': 'k{id}', 'ended': 'retracted'}),
        ('finished', "<finish xmlns='urn:xmpp:jingle-message:0' id='k{id}'><reason xmlns='urn:xmpp:jingle:1'><success/></reason></finish>",
         {'class': 'call-ended', 'call': 'k{id}', 'ended': 'finished'}),
        ('withdrawn because the account calls too', "<retract xmlns='urn:xmpp:jingle-message:0' id='k{id}'><reason "
            "xmlns='urn:xmpp:jingle:1'>"
         "<expired/></reason><tie-break/></retract>", {'class': 'call-ended', 'call': 'k{id}', 'ended': 'answered'}),
        ('rings there', "<ringing xmlns='urn:xmpp:jingle-message:0' id='k{id}'/>", None),
        ('accepted there', "<proceed xmlns='urn:xmpp:jingle-message:0' id='k{id}'/>", None),
        ('rejected there', "<reject xmlns='urn:xmpp:jingle-message:0' id='k{id}'/>", None),
        ('invitation to a call', "<invite xmlns='urn:xmpp:call-invites:0' id='k{id}'><jingle sid='s'/></invite>", call('audio')),
        ('invitation to a video call', "<invite xmlns='urn:xmpp:call-invites:0' id='k{id}' video='true'><jingle "
            "sid='s'/></invite>" + STORE, call('audio video')),
        ('invitation by its older name', "<propose xmlns='urn:xmpp:call-message:1' id='k{id}' video='true'><jingle "
            "sid='s'/></propose>", call('audio video')),
        ('invitation by both names', "<invite xmlns='urn:xmpp:call-invites:0' id='k{id}'/><propose xmlns='urn:xmpp:call-message:1' "
            "id='other'/>", call('audio')),
        ('both kinds of invitation', f"<invite xmlns='urn:xmpp:call-invites:0' id='other' video='true'/><propose "
            f"xmlns='urn:xmpp:jingle-message:0' "
         f"id='k{{id}}'>{AUDIO}</propose>", call('audio')),
        ('invitation withdrawn', "<retract xmlns='urn:xmpp:call-invites:0' id='k{id}'/>",
         {'class': 'call-ended', 'call': 'k{id}', 'ended': 'retracted'}),
        ('invitation accepted there', "<accept xmlns='urn:xmpp:call-invites:0' id='k{id}'/>", None),
        ('invitation left', "<left xmlns='urn:xmpp:call-invites:0' id='k{id}'/>", None),
        ('meeting', "<propose xmlns='tigase:meet:0' id='k{id}' "
            "jid='meet@example.com'><media>audio</media><media>video</media></propose>", call('audio video'))):
    vector(f'call: {name}', f"<message type='chat' to='{{bob}}' id='{{id}}'>{content}</message>", *[event] * bool(event),
           differs="What ended it is the account's own call, so it is no missed call." if 'too' in name else '')
vector('call: invitation without an id of its own', '''
    <message type='chat' to='{bob}' id='k{id}'><invite xmlns='urn:xmpp:call-invites:0'/></message>''', call('audio'))
vector('call: group call', '''
    <message type='groupchat' to='{room}' id='{id}'><invite xmlns='urn:xmpp:call-invites:0' id='k{id}' video='true' multi='true'><muji
    xmlns='urn:xmpp:jingle:muji:0' room='u@muc.example.com'/></invite></message>''',
       call('audio video'), way='room')
vector('call: late', f'''
    <message type='chat' to='{{bob}}' id='{{id}}'><propose xmlns='urn:xmpp:jingle-message:0' id='k{{id}}'>{AUDIO}</propose><delay
    xmlns='urn:xmpp:delay' stamp='2026-11-25T22:40:00Z'/></message>''',
       call('audio', stamp='1795646400000'), differs='The relay decides by the stamp that it is a missed call.')

# Invitations, attention -------------------------------------------------------------------------------------------------

INVITE = {'class': 'invite'}
vector('invitation', '''
    <message to='{bob}' id='{id}'><x xmlns='jabber:x:conference' jid='r{id}@example.com' password='s3cret' reason='tea'/><no-store
    xmlns='urn:xmpp:hints'/></message>''',
       {**INVITE, 'type': 'normal', 'room': 'r{id}@example.com'})
vector('invitation by the room', '''
    <message from='r{id}@{gateway}' to='{bob}'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='alice@example.com/a'>
    <reason>tea</reason></invite></x><x xmlns='jabber:x:conference' jid='r{id}@{gateway}'/><body>alice@example.com/a asks bob, password
    s3cret</body></message>''',
       {**INVITE, 'type': 'normal', 'room': 'r{id}@{gateway}', 'inviter': 'alice@example.com/a'}, way='gateway')
vector('invitation to a MIX channel', '''
    <message type='chat' to='{bob}' id='{id}'><body>Come in</body><invitation
    xmlns='urn:xmpp:mix:misc:0'><inviter>alice@example.com</inviter>
    <invitee>{bob}</invitee><channel>c{id}@example.com</channel></invitation></message>''',
       {**INVITE, 'room': 'c{id}@example.com'})
vector('invitation to a room where the account is', '''
    <message to='{bob}' id='{id}'><x xmlns='jabber:x:conference' jid='{room}'/></message>''')
vector('invitation declined', '''
    <message from='{hall}' to='{bob}'><x xmlns='http://jabber.org/protocol/muc#user'><decline
    from='alice@example.com'><reason>no</reason></decline>
    </x></message>''', way='gateway')
vector('invitation without a room', '''
    <message to='{bob}' id='{id}'><x xmlns='jabber:x:conference'/></message>''')
vector('attention', '''
    <message type='headline' to='{bob}' id='{id}'><attention xmlns='urn:xmpp:attention:0'/></message>''',
       {'class': 'attention', 'type': 'normal'}, differs='There is no type headline on the bridge: it is normal.')
vector('attention with a text', '''
    <message type='chat' to='{bob}' id='{id}'><attention xmlns='urn:xmpp:attention:0'/><body>wake up</body></message>''',
       {'class': 'attention', 'body': 'wake up'})
vector('attention that is late', '''
    <message type='headline' to='{bob}' id='{id}'><attention xmlns='urn:xmpp:attention:0'/><delay xmlns='urn:xmpp:delay'
    stamp='2026-11-25T22:40:00Z'/></message>''')
vector('attention that is late with a text', '''
    <message type='chat' to='{bob}' id='{id}'><attention xmlns='urn:xmpp:attention:0'/><body>wake up</body><delay xmlns='urn:xmpp:delay'
    stamp='2026-11-25T22:40:00Z'/></message>''',
       text('wake up', stamp='1795646400000'))
vector('attention in a room', '''
    <message type='groupchat' to='{room}' id='{id}'><attention xmlns='urn:xmpp:attention:0'/><body>wake up</body></message>''',
       text('wake up'), way='room', differs='Who may call for attention in a room is unknown, so it is only its text there.')
vector('attention in a room without a text', '''
    <message type='groupchat' to='{room}' id='{id}'><attention xmlns='urn:xmpp:attention:0'/></message>''', way='room')
