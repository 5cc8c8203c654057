/**
 * Whether text matches a pattern in which `*` stands for any characters and `?` for one; nothing else is
 * special. O(pattern × text) at worst, whatever the pattern.
 */
export function matchesGlob(pattern: string, text: string): boolean {
  let p = 0;
  let star = -1;
  let resume = 0;
  for (let i = 0; i < text.length; ) {
    if (pattern[p] === '*') {
      star = p++;
      resume = i;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === text[i])) {
      p++;
      i++;
    } else if (star >= 0) {
      p = star + 1;
      i = ++resume;
    } else return false;
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}
