/** An answer in the service's own error shape. */
export class ServiceError extends Error {
  readonly code: string;
  readonly status: number;

  constructor(code: string, status: number, message: string) {
    super(message);
    this.name = 'ServiceError';
    this.code = code;
    this.status = status;
  }
}

/** The error that both services give for a request they do not accept. */
export function invalid(code: string, message: string): ServiceError {
  return new ServiceError(code, 400, message);
}
