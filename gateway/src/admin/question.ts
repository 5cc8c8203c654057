/** A question that cannot be answered, in words for who asked. */
export class QuestionError extends Error {
  override readonly name = 'QuestionError';
}
