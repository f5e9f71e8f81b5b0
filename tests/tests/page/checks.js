// What is wrong with the page as it stands, one line each: contrast, structure, and what does not fit on the screen, which
// is `arguments[0]` wide: a narrow browser reports more where a page is too wide.
const wrong = [], width = arguments[0];

// Contrast as WCAG 2 computes it. Behind the sky's texts each of its gradient's colours counts.
const channel = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
const colour = text => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const sky = [1, 2, 3, 4].map(i => colour(getComputedStyle(document.querySelector('.sky') ?? document.body).getPropertyValue(`--sky-${i}`)));
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    if (e.matches('.sky')) return sky;
    const own = colour(getComputedStyle(e).backgroundColor);
    if (own[3] === 255) return [own];
  }
  return [[255, 255, 255]];
};
const visible = element => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && element.getClientRects().length > 0;
let measured = 0;
for (const element of document.querySelectorAll('body *')) {
  const ownText = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  if (!ownText || !visible(element) || element.closest(':disabled, .skip, option')) continue;
  const style = getComputedStyle(element), large = parseFloat(style.fontSize) >= 24;
  let opacity = 1;
  for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
  const drawn = colour(element instanceof SVGElement ? style.fill : style.color);
  measured += 1;
  for (const ground of behind(element)) {
    const ink = luminance(drawn.map((c, i) => c * opacity + ground[i] * (1 - opacity))), paper = luminance(ground), ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < (large ? 3 : 4.5)) wrong.push(`contrast ${ratio.toFixed(2)}: ${element.tagName} ${element.className.baseVal ?? element.className} "${element.textContent.trim().slice(0, 40)}"`);
  }
}
if (measured < 5) wrong.push(`only ${measured} texts were measured`);

// Structure that screen readers go by.
for (const [selector, want] of [['main', 1], ['h1', 1], ['header', 1], ['footer', 1]]) {
  const found = document.querySelectorAll(selector).length;
  if (found !== want) wrong.push(`${found} of ${selector}`);
}
if (!document.documentElement.lang) wrong.push('the page has no language');
const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
ids.filter((id, i) => ids.indexOf(id) !== i).forEach(id => wrong.push(`the id ${id} comes twice`));
for (const element of document.querySelectorAll('[aria-labelledby], [aria-describedby], label[for]')) {
  const named = `${element.getAttribute('aria-labelledby') ?? ''} ${element.getAttribute('aria-describedby') ?? ''} ${element.getAttribute('for') ?? ''}`;
  named.split(/\s+/).filter(Boolean).filter(id => !document.getElementById(id)).forEach(id => wrong.push(`nothing has the id ${id}`));
}
let level = 0;
for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
  if (!visible(heading)) continue;
  const own = Number(heading.tagName[1]);
  if (own > level + 1) wrong.push(`a heading of level ${own} after ${level}: ${heading.textContent}`);
  level = own;
}

// Fits.
if (document.documentElement.scrollWidth > width) wrong.push(`the page is ${document.documentElement.scrollWidth} wide on ${width}`);
for (const element of document.querySelectorAll('button, input, select, p, h1, h2, h3, li, td, th')) {
  const box = element.getBoundingClientRect();
  if (visible(element) && box.width && !element.closest('.scroll, pre') && (box.right > width + 1 || box.left < -1)) wrong.push(`off the screen: ${element.tagName} "${element.textContent.trim().slice(0, 40)}"`);
}
for (const button of document.querySelectorAll('.pauses button')) {
  const box = button.getBoundingClientRect(), pill = button.parentElement.getBoundingClientRect();
  if (visible(button) && box.right > pill.right) wrong.push(`sticks out: ${button.textContent}`);
}
return wrong;
