"""An MCP server of the official Python SDK behind a login: the SDK's own check of bearer tokens and its metadata of the
protected resource, and an authorization server of which each token is asked (RFC 7662).

    python server.py '{"issuer": ISSUER}'

prints {"url"} when it listens, and ends when its stdin closes. `GET /seen` tells how many requests it let in and how many not.
"""

import json
import os
import socket
import sys
import threading

import httpx2
import uvicorn
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from starlette.responses import JSONResponse

issuer = json.loads(sys.argv[1])["issuer"]
listener = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
introspection = httpx2.get(f"{issuer}/.well-known/openid-configuration").json()["introspection_endpoint"]
seen = {"let_in": 0, "kept_out": 0}


class Introspection:
    """What the authorization server says of a token."""

    async def verify_token(self, token):
        async with httpx2.AsyncClient() as client:
            told = (await client.post(introspection, data={"client_id": "native", "token": token})).json()
        if not told["active"]:
            return None
        return AccessToken(
            token=token,
            client_id=told["client_id"],
            scopes=told["scope"].split(),
            expires_at=told["exp"],
            resource=told["aud"],
            subject=told["sub"],
        )


auth = AuthSettings(issuer_url=issuer, resource_server_url=url, required_scopes=["mcp:read"], validate_token_resource=True)
server = MCPServer("python-sdk", token_verifier=Introspection(), auth=auth, log_level="WARNING")


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
async def count(to: int, ctx: Context) -> int:
    """Tells of every step, so that its answer is a stream."""
    for step in range(1, to + 1):
        await ctx.report_progress(step, to)
    return to


@server.tool()
def whoami() -> str:
    return get_access_token().subject


@server.custom_route("/seen", methods=["GET"])
async def tell(_request):
    return JSONResponse(seen)


class Counting:
    """Counts what is let in and what is not."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        async def counted(message):
            if message["type"] == "http.response.start" and scope["path"] == "/mcp":
                seen["kept_out" if message["status"] == 401 else "let_in"] += 1
            await send(message)

        await self.inner(scope, receive, counted if scope["type"] == "http" else send)


def end_with_stdin():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_stdin, daemon=True).start()
print(json.dumps({"url": url}), flush=True)
config = uvicorn.Config(Counting(server.streamable_http_app()), log_level="warning")
uvicorn.Server(config).run(sockets=[listener])
