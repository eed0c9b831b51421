from .conftest import picture, violations
import pytest
def seed(stage):
    t = stage.axme.app.tasks
    s = stage
    done = s.submit(t["shop.refund"].s("A-1000","12.00 EUR"), requester="kim", key="refund-A-1000", tags=["refunds"])
    s.pass_time("3h"); s.answer(done.id,"approved",by="ana",comment="Fine.")
    ex = s.submit(t["shop.export"].s("2026-10"), key="export-2026-10", tags=["monthly","reports"], requester="ana")
    s.pass_time("40m"); s.complete_tool("warehouse","job-2026-10",result={"rows":4121})
    s.pass_time("26h")
    ref = s.submit(t["shop.refund"].s("A-1029","129.00 EUR"), requester="kim", key="refund-A-1029", tags=["refunds"])
    exp = s.submit(t["shop.expense"].s("ana"))
    rel = s.submit(t["shop.release"].s("1.42"), requester="dev-lead")
    s.answer(rel.id,"approved",by="bo",comment="Canary looked good for a day.")
    con = s.submit(t["shop.contract"].s("Nordwind GmbH"))
    for n in range(4): s.submit(t["shop.sync"].s(f"B-{n}"))
    s.pass_time("50m")
    return dict(done=done, ex=ex, ref=ref, exp=exp, rel=rel, con=con)
@pytest.mark.parametrize("scheme",["light","dark"])
def test_shots(stage, person, scheme):
    x = seed(stage)
    p = person("ana", role="operator", groups=("finance","analysts"), color_scheme=scheme)
    bad = []
    def shot(path,name):
        p.goto(path); p.wait_for_timeout(250)
        picture(p, f"{name}-{scheme}")
        v = violations(p)
        bad.extend([(name,e) for e in v])
    shot("/inbox","inbox"); shot("/intents","intents"); shot(f"/intents/{x['ex'].id}","intent"); shot(f"/intents/{x['done'].id}","intent-done")
    for k in ("ref","exp","rel","done"):
        w = x[k].waits()[0]
        shot(f"/waits/{w.id}", f"wait-{k}")
    shot("/dead-letters","letters"); shot("/deliveries","deliveries"); shot("/overview","overview"); shot("/sign-in","signin"); shot("/nothing","notfound")
    p.set_viewport_size({"width":320,"height":800})
    for path,name in (("/inbox","inbox"),(f"/waits/{x['ref'].waits()[0].id}","wait"),(f"/intents/{x['ex'].id}","intent"),("/overview","overview")):
        p.goto(path); p.wait_for_timeout(150); picture(p, f"{name}-320-{scheme}")
        w = p.evaluate("document.documentElement.scrollWidth"); print(name, "scrollWidth", w)
    for b in bad: print(b)
