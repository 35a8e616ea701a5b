/**
 * Linear algebra on batches of matrices, composed of tensor operations: every backend has it. For matrices of up to a few hundred rows.
 * @module
 */
export { cholesky, qr, type QR } from "./factor.ts";
export { inverse, solve, solveTriangular, type TriangularOptions } from "./solve.ts";
export { svd, type SVD } from "./svd.ts";
