#!/usr/bin/python3
"""An XMPP client (slixmpp) that a test drives: a JSON command a line on stdin, a JSON answer or event a line on stdout.

usage: xmpp_client.py JID/RESOURCE PASSWORD HOST PORT [--sm]

Every command is answered once the server has processed it: an XEP-0199 ping behind it came back.
"""
import asyncio
import json
import logging
import sys

import slixmpp
from slixmpp.xmlstream import ET

logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


def say(**words):
    print(json.dumps(words), flush=True)


class Client(slixmpp.ClientXMPP):
    def __init__(self, jid, password, sm):
        super().__init__(jid, password)
        self["feature_mechanisms"].unencrypted_plain = True
        self.register_plugin("xep_0199")
        if sm:
            self.register_plugin("xep_0198")
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("message", lambda m: say(event="message", sender=str(m["from"]), body=m["body"], id=m["id"]))
        self.add_event_handler("failed_auth", lambda _: sys.exit("authentication failed"))
        self.sm = sm

    async def started(self, _):
        self.send_presence()
        await self.settle()
        say(event="online", jid=str(self.boundjid))

    async def settle(self):
        await self["xep_0199"].ping(self.boundjid.domain, timeout=10)

    async def obey(self, command):
        match command["do"]:
            case "presence":
                self.send_presence(pshow=command.get("show"), ppriority=command.get("priority"), ptype=command.get("type"))
            case "csi":
                self.send_raw("<%s xmlns='urn:xmpp:csi:0'/>" % command["state"])
            case "send":
                message = self.make_message(mto=command["to"], mbody=command.get("body"), mtype=command.get("type", "chat"))
                message["id"] = command.get("id", self.new_id())
                for xml in command.get("children", []):
                    message.append(ET.fromstring(xml))
                message.send()
            case "iq":
                # any request; the answer is said as it came, also where it is an error
                iq = self.make_iq(ito=command["to"], itype=command["type"])
                iq.append(ET.fromstring(command["xml"]))
                try:
                    answer = await iq.send(timeout=30)
                except slixmpp.exceptions.IqError as error:
                    answer = error.iq
                say(event="answer", xml=str(answer))
            case "drop":
                # no closing tag, no FIN: the phone just lost its network
                self.transport.abort()
                return True
            case "logout":
                await self.disconnect(wait=2)
                return True
        await self.settle()
        return False


async def main(jid, password, host, port, *flags):
    client = Client(jid, password, "--sm" in flags)
    client.connect((host, int(port)), disable_starttls=True, force_starttls=False, use_ssl=False)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        done = await client.obey(json.loads(line))
        say(event="done")
        if done:
            break


asyncio.get_event_loop().run_until_complete(main(*sys.argv[1:]))
