"""Stanzas that no client should send: each vector with an element broken, nested, repeated or oversized, or put into another."""
import copy
import random
import xml.etree.ElementTree as ET

from vectors import VECTORS

BYTES_MAX = 180000  # of a stanza; both servers take at least 250,000
DEPTH, REPEATS = 60, 300
VALUES = ['', ' ', '0', '-1', '1', '65536', '1e99', '9' * 400, '0x10', 'NaN', 'true', '%', '%00%ff%zz', '@', '/', 'a@', '@b', 'a@b/',
          'xmpp:', 'geo:1,2', '#', 'https://', 'aesgcm://x#' + 'a' * 88, '\u202e\u200b\ufeff', '\u0085\u2028', '🍵' * 40, "'\"<&>",
          'urn:xmpp:reply:0', 'https://a/' + '%ef%bf%bf%01',
          'T'.join(['2026-13-99', '99:99:99Z']), '?OTR:AAMD', '\n> \n>', 'é' * 600, '../' * 50, 'x' * 1500]
LONG = ['a', '你', '🙂', ' ', '\n', '>', '> a\n', '#', 'https://', 'https://a#b ', 'aesgcm://', 'bob ', 'bo', "'", 'data:', 'geo:1,', '/',
        '%41', '.']
KEPT = ('from', 'to')  # the way to the account


class Mutator:
    """One stream of stanzas; the same seed gives the same."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def stanza(self, vector, names):
        """The vector, made wrong; as text."""
        names = {**names, 'id': f'{self.random.getrandbits(48):x}'}
        root = ET.fromstring(vector.stanza.format(**names))
        for _ in range(self.random.choice((1, 1, 2, 3))):
            self.mutate(root, vector, names)
        if vector.way == 'room' and root.get('type') != 'groupchat':
            root.set('type', 'groupchat')  # an error would make the room remove alice
        text = ET.tostring(root, encoding='unicode')
        return text if len(text.encode()) <= BYTES_MAX else self.stanza(vector, names)

    def mutate(self, root, vector, names):
        parents = [root, *(e for e in root.iter() if len(e))]
        parent = self.random.choice(parents)
        if not len(parent):
            return self.borrow(root, names)
        element = self.random.choice(list(parent))
        self.random.choice((self.drop, self.break_attribute, self.break_attribute, self.break_text, self.rename, self.nest, self.repeat,
                            self.lengthen, self.move, self.borrow_into))(root, parent, element, names)
        return None

    def drop(self, root, parent, element, names):
        if element.attrib and self.random.random() < 0.5:
            del element.attrib[self.random.choice(list(element.attrib))]
        else:
            parent.remove(element)

    def break_attribute(self, root, parent, element, names):
        target = self.random.choice((element, element, element, root))
        name = self.random.choice([*target.attrib, 'id', 'type', 'jid', 'start', 'end', 'from', 'stamp', 'for', 'by', 'uri', 'code'])
        if target is not root or name not in KEPT:
            target.set(name, self.random.choice(VALUES))
        if root.get('type') == '':
            del root.attrib['type']

    def break_text(self, root, parent, element, names):
        element.text = self.random.choice(VALUES)

    def rename(self, root, parent, element, names):
        namespace, _, name = element.tag.rpartition('}')
        other = self.random.choice([*(e.tag for e in root.iter()), 'body', 'x', '{urn:xmpp:delay}delay', '{urn:example:none}a'])
        element.tag = self.random.choice((other, name, *((f'{namespace}:9}}{name}', f'{namespace}}}other') if namespace else ())))

    def nest(self, root, parent, element, names):
        place = list(parent).index(element)
        for _ in range(self.random.choice((1, 2, DEPTH))):
            outer = ET.Element(element.tag, element.attrib)
            parent.remove(element)
            outer.append(element)
            parent.insert(place, outer)
            element = outer

    def repeat(self, root, parent, element, names):
        for n in range(self.random.choice((1, 2, 40, REPEATS))):
            twin = copy.deepcopy(element)
            if self.random.random() < 0.3:
                twin.set('{http://www.w3.org/XML/1998/namespace}lang', f'x-{n}')
            parent.append(twin)

    def lengthen(self, root, parent, element, names):
        part = self.random.choice(LONG)
        text = part * (self.random.choice((9000, 60000)) // len(part.encode()))
        if self.random.random() < 0.7 or not element.attrib:
            element.text = text + self.random.choice(('', 'x', '\n', '/', (element.text or '')))
        else:
            element.set(self.random.choice(list(element.attrib)), text)

    def move(self, root, parent, element, names):
        inside = {id(e) for e in element.iter()}
        targets = [e for e in root.iter() if id(e) not in inside]
        parent.remove(element)
        self.random.choice(targets).append(element)

    def borrow_into(self, root, parent, element, names):
        self.borrow(self.random.choice((root, root, element)), names)

    def borrow(self, target, names):
        """What another kind of message has, beside what this one has."""
        other = ET.fromstring(self.random.choice(VECTORS).stanza.format(**names))
        for child in list(other):
            if self.random.random() < 0.7:
                target.insert(self.random.randint(0, len(target)), child)
