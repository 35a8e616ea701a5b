/** Errors in the form of OpenAI's API. */

/** The parts of an error that clients read. */
interface Details {
  /** The field of the request that is at fault. */
  readonly param?: string;
  /** A name for programs, such as "model_not_found". */
  readonly code?: string;
}

const TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  429: "rate_limit_error",
  500: "server_error",
  503: "server_error",
};

/** An error that a request is answered with. */
export class ApiError extends Error {
  /** The HTTP status. */
  readonly status: number;
  readonly #details: Details;

  constructor(status: number, message: string, details: Details = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.#details = details;
  }

  /** The body of the answer. */
  body(): object {
    const { param = null, code = null } = this.#details;
    return {
      error: { message: this.message, type: TYPES[this.status] ?? "invalid_request_error", param, code },
    };
  }
}

/** The error that a failure is answered with. What is not an ApiError is a fault of the server, or of the model's files. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(500, error instanceof Error ? error.message : String(error));
}
