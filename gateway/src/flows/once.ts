/** A function of objects that come again and again, called once for each. Forgets with them. */
export function once<Input extends object, Result>(make: (input: Input) => Result): (input: Input) => Result {
  const made = new WeakMap<Input, Result>();
  return (input) => {
    let result = made.get(input);
    if (result === undefined) {
      result = make(input);
      made.set(input, result);
    }
    return result;
  };
}
