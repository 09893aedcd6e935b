import assert from 'node:assert/strict';
import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import { describe, it } from 'node:test';
import { sendWebResponse, toWebRequest } from './web-exchange.ts';

describe('toWebRequest', () => {
  it('hands over what the protocol reads, never the credential', () => {
    const request = new IncomingMessage(new Socket());
    request.method = 'POST';
    request.headers = { authorization: 'Bearer secret', cookie: '__session=secret', 'mcp-method': 'ping' };
    assert.deepEqual([...toWebRequest(request).headers], [['mcp-method', 'ping']]);
  });
});

describe('sendWebResponse', () => {
  it('leaves an answer alone that was given already', async () => {
    const response = new ServerResponse(new IncomingMessage(new Socket()));
    response.writeHead(503).end();
    await sendWebResponse(Response.json({}), response);
    assert.equal(response.statusCode, 503);
  });
});
