import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printable, render } from './render.ts';

test('an object is lines of key and value, inner objects with dots, inner lists as indented tables', () => {
  const output = {
    id: 'k1',
    expiresAt: null,
    permissions: ['tools:read', 'usage:read'],
    period: { start: 'a', end: 'b' },
    sources: [
      { name: 'north', price: '1.5' },
      { name: 'northwest', price: '12.25' },
    ],
    empty: [],
  };
  assert.equal(
    render(output),
    [
      'id: k1',
      'expiresAt: -',
      'permissions: tools:read, usage:read',
      'period.start: a',
      'period.end: b',
      'sources:',
      '  name       price',
      '  north      1.5',
      '  northwest  12.25',
      'empty: none',
      '',
    ].join('\n'),
  );
});

test('a page is its table, without columns that are empty in every row, and says how to go on', () => {
  const items = [
    { id: 'k1', name: 'one', revokedAt: null },
    { id: 'k22', name: 'two', revokedAt: null },
  ];
  assert.equal(render({ items, nextCursor: 'abc' }), 'id   name\nk1   one\nk22  two\nmore: --cursor abc\n');
  assert.equal(render({ items: [], nextCursor: null }), 'none\n');
  const nested = [{ id: 'k1', tags: ['a', 'b'], secrets: [{ state: 'current' }, { state: 'ended' }] }];
  assert.equal(render({ items: nested, nextCursor: null }), 'id  tags  secrets\nk1  a, b  2\n');
});

test('nothing that is shown can move the cursor or start a line of its own', () => {
  assert.equal(printable('a\nb\u001b[2J\u0085\u007f'), 'a\\u000ab\\u001b[2J\\u0085\\u007f');
  assert.equal(render({ name: 'x\r\nid: forged' }), 'name: x\\u000d\\u000aid: forged\n');
  assert.equal(render({ items: [{ name: '\u001b[31m' }], nextCursor: null }), 'name\n\\u001b[31m\n');
});
