/** Masks of parameters whose elements are trained in part. */
import { type Parameter, sameShape, type Tensor } from "@tiedlora/core";
import { checkTensors, show } from "@tiedlora/core/extend";

/** Throws if `mask` cannot be `parameter.updateMask`: it must be a tensor that broadcasts to the parameter's shape. */
export function checkMask(parameter: Parameter, mask: Tensor): void {
  checkTensors(`updateMask of ${parameter.name}`, [mask]);
  const shape = mask.shape.length > parameter.rank ? null : mask.expand(parameter.shape).shape;
  if (!shape || !sameShape(shape, parameter.shape)) {
    throw new RangeError(
      `updateMask ${show(mask.shape)} does not broadcast to ${parameter.name} ${show(parameter.shape)}`,
    );
  }
}
