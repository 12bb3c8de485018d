#!/usr/bin/env python3
"""Drives an unmodified ccxt (sync) against a running exchange-simulator, on all three exchanges.

usage: python3 Tests/ccxt_check.py http://127.0.0.1:8900      (needs `pip install ccxt`; a freshly started simulator)
One line a check, then `N passed, M failed`; exit code 1 when one failed. Only URLs and keys are set.
"""
import base64
import json
import sys
import time
import uuid

import ccxt

BASE = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8900"
passed, failed = 0, 0


def redirect(urls):
    """Every address of a ccxt `urls.api`, with the simulator in place of the host."""
    if isinstance(urls, dict):
        return {name: redirect(url) for name, url in urls.items()}
    if not isinstance(urls, str):
        return urls
    path = urls.split("://", 1)[-1].split("/", 1)
    return PREFIX + ("/" + path[1] if len(path) > 1 else "")


def client(name, **extra):
    global PREFIX
    PREFIX = f"{BASE}/{name}"
    secret = f"sim-{name}-secret"
    if name == "kraken":
        secret = base64.b64encode(secret.encode()).decode()
    exchange = getattr(ccxt, name)({"apiKey": f"sim-{name}-key", "secret": secret, **extra})
    exchange.urls["api"] = redirect(exchange.urls["api"])
    exchange.urls["hostname"] = exchange.hostname = BASE.split("://", 1)[1]
    return exchange


def check(label, what):
    """Runs `what`, which returns a short text of what it saw, or raises."""
    global passed, failed
    try:
        print(f"ok    {label}: {what()}", flush=True)
        passed += 1
    except Exception as problem:  # every fault is a failed check, never the end of the run
        print(f"FAIL  {label}: {type(problem).__name__}: {str(problem)[:300]}", flush=True)
        failed += 1


def same(seen, wanted, what):
    assert seen == wanted, f"{what} is {seen!r}, expected {wanted!r}"
    return seen


def refused(call, *kinds, text=""):
    try:
        answer = call()
    except kinds as error:
        assert type(error) is not Exception and text in str(error), f"{error!r} does not say {text!r}"
        return f"{type(error).__name__} {str(error)[:90]}"
    raise AssertionError(f"accepted: {str(answer)[:200]}")


def ticker(exchange, symbol, tick):
    seen = exchange.fetch_ticker(symbol)
    assert seen["low"] <= seen["last"] <= seen["high"] and 0 < seen["bid"] < seen["ask"], seen
    assert seen["bid"] <= seen["last"] <= seen["ask"] and seen["baseVolume"] > 0 and seen["open"] > 0, seen
    for name in ("bid", "ask", "last"):
        steps = seen[name] / tick
        assert abs(steps - round(steps)) < 1e-4, f"{name} {seen[name]} is not a multiple of {tick}"
    return f"bid {seen['bid']} ask {seen['ask']} last {seen['last']}"


def tickers(exchange, symbols):
    few, every = exchange.fetch_tickers(symbols), exchange.fetch_tickers(None, {"type": "spot"})
    same(sorted(few), sorted(symbols), "symbols of the few")
    assert set(symbols) <= set(every) and len(every) >= 7, list(every)
    return f"{len(few)} and {len(every)}"


def order_checks(name, exchange, symbol, reuse):
    """Market and resting orders, client ids and cancels; `reuse`: a closed order's client id is accepted again."""
    field = {"binance": "newClientOrderId", "bybit": "orderLinkId", "kraken": "clientOrderId"}[name]
    query = {"acknowledged": True} if name == "bybit" else {}
    mine = str(uuid.uuid4())
    price = {"BTC/USDT": "51200", "BTC/USD": "51200"}[symbol]  # well below the market: rests
    limit = lambda params, size=0.01: exchange.create_order(symbol, "limit", "buy", size, float(price), params)
    placed = {}

    def market():
        order = exchange.create_order(symbol, "market", "buy", 0.01)
        seen = exchange.fetch_order(order["id"], symbol, query)
        same(seen["status"], "closed", "status"), same(seen["filled"], 0.01, "filled"), same(seen["side"], "buy", "side")
        assert abs(seen["average"] / exchange.fetch_ticker(symbol)["last"] - 1) < 0.02, f"average {seen['average']}"
        return f"filled at {seen['average']}"

    def for_cost():
        order = exchange.create_market_buy_order_with_cost(symbol, 500)
        seen = exchange.fetch_order(order["id"], symbol, query)
        same(seen["status"], "closed", "status")
        assert 499 < seen["filled"] * seen["average"] <= 500, f"{seen['filled']} at {seen['average']}"
        return f"{seen['filled']} for {seen['cost']}"

    def resting():
        placed["id"] = limit({field: mine})["id"]
        seen = exchange.fetch_order(placed["id"], symbol, query)
        same(seen["status"], "open", "status"), same(seen["clientOrderId"], mine, "client id")
        same((seen["price"], seen["amount"], seen["filled"]), (float(price), 0.01, 0), "price, amount, filled")
        return placed["id"]

    def by_client_id():
        if name == "binance":
            seen = [exchange.fetch_order(None, symbol, {"origClientOrderId": mine})]
        else:
            field = {"bybit": "orderLinkId", "kraken": "cl_ord_id"}[name]
            seen = exchange.fetch_open_orders(symbol, None, None, {field: mine})
        return same([order["id"] for order in seen], [placed["id"]], "ids")

    def opened():
        seen = [order["id"] for order in exchange.fetch_open_orders(symbol)]
        assert placed["id"] in seen, seen
        return f"{len(seen)} open"

    def cancelled():
        exchange.cancel_order(placed["id"], symbol)
        same(exchange.fetch_order(placed["id"], symbol, query)["status"], "canceled", "status")
        assert placed["id"] not in [order["id"] for order in exchange.fetch_open_orders(symbol)]
        return refused(lambda: exchange.cancel_order(placed["id"], symbol), ccxt.ExchangeError)

    def again():
        second = limit({field: mine})["id"]
        assert second != placed["id"]
        exchange.cancel_order(second, symbol)
        return f"{placed['id']} then {second}"

    duplicate = {"binance": "Duplicate order sent.", "bybit": "170141", "kraken": "cl_ord_id not unique"}[name]
    check(f"{name} market order fills", market)
    check(f"{name} market order for a cost", for_cost)
    check(f"{name} limit order rests", resting)
    check(f"{name} query by client id", by_client_id)
    check(f"{name} open orders", opened)
    check(f"{name} client id of an open order refused",
          lambda: refused(lambda: limit({field: mine}), ccxt.ExchangeError, text=duplicate))
    check(f"{name} cancel", cancelled)
    if reuse:
        check(f"{name} client id of a closed order accepted again", again)
    else:
        check(f"{name} client id of a closed order refused",
              lambda: refused(lambda: limit({field: mine}), ccxt.ExchangeError, text=duplicate))


def unknown_order(name, exchange, symbol):
    ident = {"binance": "99999999", "bybit": "1111111111111111111", "kraken": "OAAAAA-BBBBB-CCCCCC"}[name]
    query = {"acknowledged": True} if name == "bybit" else {}
    kinds = (ccxt.OrderNotFound,) if name != "kraken" else (ccxt.OrderNotFound, ccxt.ExchangeError)
    return refused(lambda: exchange.fetch_order(ident, symbol, query), *kinds)


def too_small(name, exchange):
    """Sent through ccxt's raw endpoints, so that its own precision checks do not catch it."""
    if name == "binance":
        order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.00001", "price": "50000"}
        return refused(lambda: exchange.privatePostOrder(order), ccxt.ExchangeError, text="Filter failure: NOTIONAL")
    if name == "bybit":
        order = {"category": "spot", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.000001", "price": "50000"}
        return refused(lambda: exchange.privatePostV5OrderCreate(order), ccxt.ExchangeError, text="170140")
    order = {"pair": "XBTUSD", "type": "buy", "ordertype": "limit", "volume": "0.00001", "price": "50000"}
    return refused(lambda: exchange.privatePostAddOrder(order), ccxt.ExchangeError, text="Order minimum not met")


MARKETS = {  # symbol, price step, some symbols, markets served
    "binance": ("BTC/USDT", 0.01, ["BTC/USDT", "ETH/USDT", "SOL/USDT"], 10),
    "bybit": ("BTC/USDT", 0.1, ["BTC/USDT", "ETH/USDT"], 7),
    "kraken": ("BTC/USD", 0.1, ["BTC/USD", "ETH/USD", "DOGE/USDT"], 12),
}
for name, (symbol, tick, few, count) in MARKETS.items():
    exchange = client(name)
    check(f"{name} load_markets", lambda: same(len([m for m in exchange.load_markets().values() if m["spot"]]), count, "markets"))
    check(f"{name} price step", lambda: same(exchange.market(symbol)["precision"]["price"], tick, "step"))
    check(f"{name} fetch_time", lambda: f"{same(abs(exchange.fetch_time() - time.time() * 1000) < 2000, True, 'near')}")
    check(f"{name} fetch_ticker", lambda: ticker(exchange, symbol, tick))
    check(f"{name} fetch_tickers", lambda: tickers(exchange, few))
    order_checks(name, exchange, symbol, reuse=name != "bybit")
    check(f"{name} unknown order", lambda: unknown_order(name, exchange, symbol))
    check(f"{name} unknown symbol", lambda: refused(lambda: exchange.fetch_ticker("NO/SUCH"), ccxt.BadSymbol))
    check(f"{name} amount below the minimum", lambda: too_small(name, exchange))
    check(f"{name} absurdly large order", lambda: refused(
        lambda: exchange.create_order(symbol, "market", "buy", 40), ccxt.InsufficientFunds))
    wrong = client(name, secret=base64.b64encode(b"wrong").decode())
    signature = {"binance": "-1022", "bybit": "10004", "kraken": "EAPI:Invalid signature"}[name]
    kinds = ccxt.ExchangeError if name == "kraken" else ccxt.AuthenticationError  # ccxt has no class for Kraken's text
    check(f"{name} bad signature", lambda: refused(lambda: wrong.fetch_open_orders(symbol), kinds, text=signature))
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
