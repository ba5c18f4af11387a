"use strict";
(() => {
  // A mark's native title becomes a box that the keyboard reaches too.
  for (const plot of document.querySelectorAll(".plot")) {
    const tip = plot.querySelector(".tip");
    const hide = () => {
      tip.hidden = true;
      document.querySelectorAll(".lit").forEach((each) => each.classList.remove("lit"));
    };
    for (const drawing of plot.querySelectorAll(":scope > svg")) {
      const marks = [...drawing.querySelectorAll("a.mark")];
      marks.sort((a, b) => a.getCTM().e - b.getCTM().e || a.getCTM().f - b.getCTM().f);
      const said = new Map();
      for (const mark of marks) {
        const title = mark.querySelector("title");
        said.set(mark, title.textContent.split("\n"));
        title.remove();
      }
      const show = (mark) => {
        hide();
        const [head, ...facts] = said.get(mark);
        const strong = document.createElement("strong");
        strong.textContent = head;
        tip.replaceChildren(strong, ...facts.map((fact) => {
          const line = document.createElement("span");
          line.textContent = fact;
          return line;
        }));
        tip.hidden = false;
        const box = plot.getBoundingClientRect();
        const at = mark.querySelector(".reach").getBoundingClientRect();
        const room = box.width - tip.offsetWidth;
        const right = at.right - box.left + 6;
        const left = at.left - box.left - tip.offsetWidth - 6;
        const below = right > room && left < 0;
        tip.style.left = `${Math.max(0, right <= room ? right : left >= 0 ? left : room / 2)}px`;
        tip.style.top = `${below ? at.bottom - box.top + 6 : Math.max(0, at.top - box.top - 8)}px`;
        mark.classList.add("lit");
        document.getElementById(mark.getAttribute("href").slice(1))?.classList.add("lit");
      };
      const stop = (chosen) => marks.forEach((each) => {
        each.setAttribute("tabindex", each === chosen ? "0" : "-1");
      });
      if (marks.length) stop(marks[0]);
      marks.forEach((mark, index) => {
        mark.addEventListener("pointerenter", () => show(mark));
        mark.addEventListener("pointerleave", hide);
        mark.addEventListener("focus", () => { stop(mark); show(mark); });
        mark.addEventListener("blur", hide);
        mark.addEventListener("keydown", (event) => {
          const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
          const to = event.key === "Home" ? 0 : event.key === "End" ? marks.length - 1
            : step ? (index + step + marks.length) % marks.length : null;
          if (event.key === "Escape") hide();
          if (to === null) return;
          event.preventDefault();
          marks[to].focus();
        });
      });
    }
  }
  for (const command of document.querySelectorAll(".command")) {
    const code = command.querySelector("code");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        const range = document.createRange();
        range.selectNodeContents(code);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    command.append(button);
  }
  // A link may lead to a row of a table that is folded away.
  const unfold = () => {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = row?.closest("details:not([open])");
    if (fold) { fold.open = true; row.scrollIntoView({ block: "center" }); }
  };
  addEventListener("hashchange", unfold);
  unfold();
  const closed = [];
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details:not([open])")) { each.open = true; closed.push(each); }
  });
  addEventListener("afterprint", () => { for (const each of closed.splice(0)) each.open = false; });
})();
