// Wide tables scroll in a frame that the theme puts around them; the keyboard reaches it only where it can be focused.
document$.subscribe(() =>
  requestAnimationFrame(() => {
    for (const frame of document.querySelectorAll(".md-typeset__scrollwrap")) frame.tabIndex = 0;
  }),
);
